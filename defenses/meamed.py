"""Meamed: per coordinate the mean of the n - f values nearest to the median.

g_j = mean of the n - f values u_ij that are nearest to median_i(u_ij)

Shapes: rows (n, d) → one merged row (1, d).

Source: C. Xie, O. Koyejo, I. Gupta, "Generalized Byzantine-tolerant SGD", 2018 (arXiv 1802.10116),
mean around the median.

Deviations: none. The median of an even number of values is the mean of the two middle ones; of two
values equally far from it the smaller one is kept. Sample counts are not used, as in the paper.

Checked: the numbers against ByzFL 0.0.11 (tests/defenses/test_byzfl.py): equal.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[1.0], [2.0], [6.0], [90.0]]), torch.ones(4), torch.arange(4))
>>> meamed(f=1).apply(updates, None, None)[0].rows.tolist()  # the median is 4
[[3.0]]
"""

from __future__ import annotations

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, merge, stateless
from backstop.platform.remedies.parameters import Minority, attackers

VERSION = 1
NEEDS = ("f",)
GIVES = "row"


def meamed(
    *,
    f: Minority = None,
) -> Defense:
    """The mean around the median of all rows."""

    def aggregated(updates: Updates) -> Updates:
        n = len(updates.rows)
        assumed = attackers(f, n)
        return merge(updates, robust.mean_around_median(updates.rows, n - assumed))

    return stateless(aggregated, scope="coordinates")
