"""Coordinate-wise median of the updates.

g_k = med{x_k^i : i = 1 … n}

Shapes: rows (n, d) → one merged row (1, d).

Source: D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-Robust Distributed Learning:
Towards Optimal Statistical Rates", ICML 2018, definition 1 and algorithm 1.

Deviations: none. For even n it is the mean of the two middle values. Sample counts are not used, as
in the paper, where all clients hold equally many samples.

Checked: the numbers against ByzFL 0.0.11 (tests/defenses/test_byzfl.py): equal. Definition 1 is
remembered.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[1.0], [2.0], [90.0], [4.0]]), torch.ones(4), torch.arange(4))
>>> median().apply(updates, None, None)[0].rows.tolist()
[[3.0]]
"""

from __future__ import annotations

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, merge, stateless

VERSION = 2
GIVES = "row"


def median() -> Defense:
    """The coordinate-wise median of all rows."""

    def aggregated(updates: Updates) -> Updates:
        return merge(updates, robust.median(updates.rows))

    return stateless(aggregated, scope="coordinates")
