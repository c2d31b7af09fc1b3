"""Norm clipping: no update is longer than a given norm.

u_i <- u_i · min(1, c / ‖u_i‖₂);   g = plain mean of the clipped rows

Shapes: rows (n, d) → (n, d); all weights equal.

Source: Z. Sun, P. Kairouz, A. T. Suresh, H. B. McMahan, "Can You Really Backdoor Federated
Learning?", 2019 (arXiv 1911.07963), norm thresholding of updates.

Deviations: none without the noise, which the paper adds as a second step (weak differential
privacy, ``weak_dp``). The paper's thresholds, 3 and more (remembered), belong to its model: a
useful norm depends on model, data and learning rate, so the default is only a unit.
``weights=samples`` averages by sample counts, as federated averaging does.

Checked: the plain mean of the clipped rows against the authors' code (google-research/federated,
targeted_attack).

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[0.5, 0.0], [3.0, 4.0]]), torch.ones(2), torch.arange(2))
>>> norm_clip(norm=1.0).apply(updates, None, None)[0].rows
tensor([[0.5000, 0.0000],
        [0.6000, 0.8000]])
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, equal_weights, stateless
from backstop.platform.params import Range
from backstop.platform.remedies.parameters import Counting

VERSION = 2
TAKES = "row"


def norm_clip(
    *,
    norm: Annotated[
        float,
        Range(1e-6, 1e6, log=True, search=(1e-2, 1e2)),
        "largest Euclidean norm that is kept, c",
    ] = 1.0,
    weights: Counting = "equal",
) -> Defense:
    """All rows, the long ones shortened to the norm."""

    def clipped(updates: Updates) -> Updates:
        counted = equal_weights(updates) if weights == "equal" else updates
        return counted._replace(rows=robust.clip(updates.rows, norm))

    return stateless(clipped, scope="coordinates")
