"""ARC: adaptive robust clipping, the k longest updates are shortened to the length of the next one.

k = ⌊2 (f / n) (n - f)⌋,   C = the (k + 1)-th largest of ‖u_1‖, …, ‖u_n‖
u_i <- u_i · min(1, C / ‖u_i‖)

Shapes: rows (n, d) → (n, d).

Source: Y. Allouah, R. Guerraoui, N. Gupta, A. Jellouli, G. Rizk, J. Stephan, "Adaptive Gradient
Clipping for Robust Federated Learning", ICLR 2025, adaptive robust clipping.

Deviations: none for 2f < n, as the paper assumes; a larger f counts as the largest such. k is
exact, in integers. It is meant to stand before a robust aggregator.

Checked: the numbers against ByzFL 0.0.11 (tests/defenses/test_byzfl.py): equal on random, far and
coinciding rows.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(
...     torch.tensor([[1.0, 0.0], [0.0, 5.0], [30.0, 40.0]]), torch.ones(3), torch.arange(3)
... )
>>> arc(f=1).apply(updates, None, None)[0].rows.tolist()  # k = 1
[[1.0, 0.0], [0.0, 5.0], [3.0, 4.0]]
"""

from __future__ import annotations

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, stateless
from backstop.platform.remedies.parameters import Minority

VERSION = 1
NEEDS = ("f",)


def arc(
    *,
    f: Minority = None,
) -> Defense:
    """All rows, the longest ones shortened."""

    def clipped(updates: Updates) -> Updates:
        n = len(updates.rows)
        most = (n - 1) // 2
        assumed = most if f is None else min(f, most)
        longest_first = robust.norms(updates.rows).sort(descending=True).values
        limit = longest_first[2 * assumed * (n - assumed) // n]
        return updates._replace(rows=robust.clip(updates.rows, limit))

    return stateless(clipped, scope="coordinates")
