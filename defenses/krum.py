"""Krum: the one update that is closest to its neighbors.

s(i) = Σ_{i → j} ‖u_i - u_j‖²,   i → j: u_j is one of the n - f - 2 nearest to u_i
g = u_{argmin_i s(i)}

Shapes: rows (n, d) → (n, d); all weights but one become 0.

Source: P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine Learning with Adversaries:
Byzantine Tolerant Gradient Descent", NeurIPS 2017, section 4.

Deviations: none for 2f + 2 < n, where the paper's guarantee holds. At least one neighbor is used
wherever there is another row. Several variants go by this name; this one is the paper's: squared
distances, n - f - 2 neighbors, ties to the smaller client id.

Checked: the numbers against ByzFL 0.0.11 (tests/defenses/test_byzfl.py) where the score of f + 1
there is the one of f here. Section 4 is remembered.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[0.0], [1.0], [1.5], [90.0]]), torch.ones(4), torch.arange(4))
>>> krum(f=1).apply(updates, None, None)[0].weight.tolist()
[0.0, 1.0, 0.0, 0.0]
"""

from __future__ import annotations

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, select, stateless
from backstop.platform.remedies.parameters import KrumMinority

VERSION = 2
NEEDS = ("f",)


def krum(
    *,
    f: KrumMinority = None,
) -> Defense:
    """The row with the smallest score keeps its weight."""

    def chosen(updates: Updates) -> Updates:
        order, _ = robust.krum_order(updates.rows, f)
        return select(updates, order[:1])

    return stateless(chosen, scope="coordinates")
