"""Neural Cleanse: find the classes that a small patch leads to, and unlearn the patch.

(m_c, p_c) = argmin_{m, p}  mean_x CE(f((1 - m) ⊙ x + m ⊙ p), c) + λ_c ‖m‖₁   for each class c
flagged: c with (median - ‖m_c‖₁) / (1.4826 · MAD) > 2,   MAD = median_c |‖m_c‖₁ - median|
w <- w fine-tuned on the root set, a share of it under flagged patches with its true labels

x are from the root set; where nothing is flagged, w stays.

Shapes: params (d,) → (d,), once after the last round; rows pass unchanged.

Source: B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Y. Zhao, "Neural Cleanse:
Identifying and Mitigating Backdoor Attacks in Neural Networks", IEEE S&P 2019, sections on
detection and on patching by unlearning.

Deviations: see ``platform/remedies/inversion.py`` for those of the inversion: a step looks at one
batch of 32, so a trigger has to succeed on all 32 to reach 0.99, where the authors' code has 0.99
of all batches of a pass. 100 steps do for images of 8 x 8, larger ones may need more. The paper
unlearns for one epoch on a tenth of the training set; the root set is far smaller, so there are
several, each the local training of an honest client with the same order of batches. Of several
flagged classes each gets an equal part of the stamped samples. With two classes both are equally
far from the median: none is ever flagged. A repair that is not finite is given up.

Needs: a root set; the model; images.

Checked: price, thresholds and outlier index against the authors' published code.

Example:
>>> import torch
>>> # median 11.5, MAD 1.5: index 3.8 for 3; large masks do not count
>>> _flagged(torch.tensor([10.0, 11.0, 3.0, 12.0, 13.0, 40.0])).tolist()
[2]
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView
from backstop.platform.params import Range
from backstop.platform.remedies.inversion import invert, stamp, take

VERSION = 2
KINDS = ("image",)
NEEDS = ("root", "model")
TAKES = "row"
REPAIRS = True
# rows pass unchanged: what the defense changes comes after the last round
EXEMPT = ("adversarial",)
NORMAL = 1.4826  # times the MAD of normal values is their standard deviation
OUTLIER = 2.0


def neural_cleanse(
    *,
    steps: Annotated[
        int, Range(1, 10**5, search=(50, 1000), log=True), "steps of the inversion"
    ] = 100,
    share: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.1, 0.5)),
        "share of the root set that is stamped",
    ] = 0.2,
    epochs: Annotated[
        int,
        Range(1, 1000, search=(1, 20)),
        "times that the model trains on the root set as a client does",
    ] = 5,
) -> Defense:
    """The final model without the backdoors of flagged classes."""

    def finish(_: Any, view: ServerView) -> Tensor:
        root, classes = view.root, torch.arange(view.classes)
        order = torch.randperm(len(root.y), generator=view.generator).to(root.y.device)
        triggers = invert(view.model, view.params, root.x[order], classes, steps=steps)
        flagged = _flagged(triggers.mask.sum((1, 2, 3)))
        params = view.params.clone()
        if not len(flagged):
            return params
        chosen = order[: max(robust.round_count(share, len(order)), 1)]
        turns = torch.arange(len(chosen), device=flagged.device) % len(flagged)
        stamped = stamp(take(triggers, flagged[turns]), root.x[chosen])
        samples = root._replace(x=root.x.index_copy(0, chosen, stamped))
        for _epoch in range(epochs):
            params = params + view.train(params, samples)
        return params if params.isfinite().all() else view.params.clone()

    return Defense(finish=finish)


def _flagged(norms: Tensor) -> Tensor:
    """Numbers of the norms (classes,) that are outliers on the small side."""
    below = robust.median(norms[:, None]) - norms
    return (below > OUTLIER * NORMAL * robust.median(below.abs()[:, None])).nonzero()[:, 0]
