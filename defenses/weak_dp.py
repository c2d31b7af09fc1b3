"""Weak differential privacy: norm clipping, then Gaussian noise on the aggregate.

g = 1/n Σ_i u_i · min(1, c / ‖u_i‖₂) + N(0, σ² I)

Shapes: rows (n, d) → one merged row (1, d).

Source: Z. Sun, P. Kairouz, A. T. Suresh, H. B. McMahan, "Can You Really Backdoor Federated
Learning?", 2019 (arXiv 1911.07963), weak differential privacy. σ: H. Wang et al., "Attack of the
Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS 2020, whose code
(OOD_Federated_Learning) adds noise of 0.025 to the aggregate.

Deviations: none in the steps. σ is that of the noise on the mean; in the authors' code it follows
from a factor, and is that factor over n. Norm and noise belong to the scale of the updates and to
the number of parameters: the paper clips its own model's updates to 3 and more (remembered); here
the norm is a unit, as in norm clipping, and noise of 0.025 on d parameters is about 0.025 √d long:
longer than any clipped update from d = 1,600 on, so a large model needs less of it. The noise is
too small for a privacy guarantee, and none is computed. ``weights=samples`` averages by sample
counts.

Checked: the plain mean and the place of the noise against the authors' code
(google-research/federated, targeted_attack), the default of σ against that of
OOD_Federated_Learning.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> given = updates(torch.tensor([[0.5, 0.0], [3.0, 4.0]]))
>>> view = server_view()
>>> weak_dp(norm=1.0, noise=0.0).apply(given, None, view)[0].rows
tensor([[0.5500, 0.4000]])
"""

from __future__ import annotations

from typing import Annotated

import torch

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, equal_weights, merge
from backstop.platform.params import Range
from backstop.platform.remedies.parameters import Counting

VERSION = 2
GIVES = "row"
TAKES = "row"
EXEMPT = ("identical", "zero")  # the noise is there whatever the rows are


def weak_dp(
    *,
    norm: Annotated[
        float,
        Range(1e-6, 1e6, log=True, search=(1e-2, 1e2)),
        "largest Euclidean norm that is kept, c",
    ] = 1.0,
    noise: Annotated[
        float,
        Range(0, 1e3, search=(1e-4, 1e-1)),
        "standard deviation of the noise on each parameter, σ",
    ] = 0.025,
    weights: Counting = "equal",
) -> Defense:
    """The noisy mean of the clipped rows."""

    def noisy(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        counted = equal_weights(updates) if weights == "equal" else updates
        share = counted.weight / counted.weight.sum()
        mean = robust.mix(share.unsqueeze(0), robust.clip(updates.rows, norm))[0]
        draws = torch.randn(len(mean), generator=view.generator).to(mean.device)
        return merge(updates, mean + noise * draws), state

    return Defense(apply=noisy)
