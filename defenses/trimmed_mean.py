"""Coordinate-wise trimmed mean: in each coordinate the mean without the smallest and the largest
values.

g_k = 1 / ((1 - 2β) n) · Σ {x_k^i : x_k^i not among the βn smallest or the βn largest}

Shapes: rows (n, d) → one merged row (1, d).

Source: D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-Robust Distributed Learning:
Towards Optimal Statistical Rates", ICML 2018, definition 2 and algorithm 1.

Deviations: βn is rounded down where it is not an integer, in exact arithmetic: 0.3 of 10 is 3, and
1/3 of 3 is 1 (a ratio of counts may be written as such, ``trim_fraction=1/3``). Sample counts are
not used, as in the paper, where all clients hold equally many samples. The paper asks for β at
least the share of attackers.

Checked: the numbers against a sort of each coordinate in float64 (tests/reference.py), counts for
every f of n up to 40. Definition 2 and algorithm 1 are remembered.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(
...     torch.tensor([[1.0], [2.0], [3.0], [4.0], [90.0]]), torch.ones(5), torch.arange(5)
... )
>>> trimmed_mean(trim_fraction=0.2).apply(updates, None, None)[0].rows.tolist()
[[3.0]]
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, merge, stateless
from backstop.platform.params import Range

VERSION = 3
GIVES = "row"


def trimmed_mean(
    *,
    trim_fraction: Annotated[
        float,
        Range(0, 0.5, high_open=True, search=(0.05, 0.45)),
        "share of the rows left out on each side, β",
    ] = 0.2,
) -> Defense:
    """The coordinate-wise trimmed mean of all rows."""

    def trimmed(updates: Updates) -> Updates:
        per_side = robust.floor_count(trim_fraction, len(updates.rows))
        return merge(updates, robust.trimmed_mean(updates.rows, per_side))

    return stateless(trimmed, scope="coordinates")
