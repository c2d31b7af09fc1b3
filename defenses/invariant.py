"""Invariant aggregator: an AND-mask on sign agreement, then a coordinate-wise trimmed mean.

m_j = 1[ |1/n Σ_i sign(u_ij)| >= τ ],   g_j = m_j · mean{ u_(k)j : βn < k <= (1 - β) n },   u_(1)j <= … <= u_(n)j

Shapes: rows (n, d) → one merged row (1, d).

Source: X. Wang, D. Dimitriadis, S. Koyejo, S. Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024 (PMLR 238), the AND-mask of its equation for sign consistency followed by the trimmed mean.

Deviations: none in the settings: τ = 0.6 and β = 0.45 are those of the authors' published code, which trims over all rows (not only
those that agree) and does not use sample counts. The trimming is symmetric: βn is rounded down on both sides, so at least one
value is always left (the published slice from int(0.45 n) to int(0.55 n) is empty for n = 1, 3, 5, 7, 9 and holds only the lower
middle value for n = 10). The threshold is compared in exact arithmetic: 16 against 4 of 20 rows is 0.6 and passes.
sign(0) = 0 counts as no agreement.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[1.0, 1.0], [2.0, -2.0], [90.0, 3.0]]), torch.ones(3), torch.arange(3))
>>> invariant().apply(updates, None, None)[0].rows.tolist()
[[2.0, 0.0]]
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, merge, stateless
from backstop.platform.params import Range

VERSION = 3
GIVES = "row"


def invariant(
    *,
    mask_threshold: Annotated[float, Range(0, 1, search=(0.1, 0.9)), "least |mean of the signs| that lets a coordinate move, τ"] = 0.6,
    trim_fraction: Annotated[
        float, Range(0, 0.5, high_open=True, search=(0.05, 0.45)), "share of the rows left out on each side, β"
    ] = 0.45,
) -> Defense:
    """The trimmed mean of all rows where enough of them agree on the direction, zero elsewhere."""

    def aggregated(updates: Updates) -> Updates:
        per_side = robust.floor_count(trim_fraction, len(updates.rows))
        votes = robust.ceil_count(mask_threshold, len(updates.rows))
        return merge(updates, robust.trimmed_mean(updates.rows, per_side, votes))

    return stateless(aggregated)
