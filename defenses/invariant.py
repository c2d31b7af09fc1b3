"""Invariant aggregator: an AND-mask on sign agreement, then a coordinate-wise trimmed mean.

m_j = 1[ |1/n Σ_i sign(u_ij)| >= τ ],   u_(1)j <= … <= u_(n)j
g_j = m_j · mean{ u_(k)j : βn < k <= (1 - β) n }

Shapes: rows (n, d) → one merged row (1, d).

Source: X. Wang, D. Dimitriadis, S. Koyejo, S. Tople, "Invariant Aggregator for Defending against
Federated Backdoor Attacks", AISTATS 2024 (PMLR 238), the AND-mask of its equation for sign
consistency followed by the trimmed mean.

Deviations: τ = 0.6 and β = 0.45 are those of the authors' published code, which trims over all rows
(not only those that agree) and does not use sample counts. The trimming is symmetric: βn is rounded
down on both sides, so at least one value is always left. The published code takes the values from
place int(0.45 n) up to int(0.55 n): the same ones where n is a multiple of 20, elsewhere one value
fewer, and for n = 1, 3, 5, 7, 9 none at all. It sorts pseudo-gradients, old minus new parameters,
so what it leaves out is the smallest of the values kept here: of updates 1 … 10 it takes 6, the
upper of the two middle ones, and this rule their mean, 5.5. The threshold is compared in exact
arithmetic: 16 against 4 of 20 rows is 0.6 and passes. sign(0) = 0 counts as no agreement.

Checked: against the authors' code, with which it agrees bit for bit at n = 20.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(
...     torch.tensor([[1.0, 1.0], [2.0, -2.0], [90.0, 3.0]]), torch.ones(3), torch.arange(3)
... )
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
    mask_threshold: Annotated[
        float,
        Range(0, 1, search=(0.1, 0.9)),
        "least |mean of the signs| that lets a coordinate move, τ",
    ] = 0.6,
    trim_fraction: Annotated[
        float,
        Range(0, 0.5, high_open=True, search=(0.05, 0.45)),
        "share of the rows left out on each side, β",
    ] = 0.45,
) -> Defense:
    """The trimmed mean of all rows where enough of them agree on the direction, zero elsewhere."""

    def aggregated(updates: Updates) -> Updates:
        per_side = robust.floor_count(trim_fraction, len(updates.rows))
        votes = robust.ceil_count(mask_threshold, len(updates.rows))
        return merge(updates, robust.trimmed_mean(updates.rows, per_side, votes))

    return stateless(aggregated, scope="coordinates")
