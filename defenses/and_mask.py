"""AND-mask alone: coordinates on whose direction too few rows agree stay where they are.

m_j(τ) = 1[ |1/n Σ_i sign(u_ij)| >= τ ],   u_i <- m(τ) ⊙ u_i

Shapes: rows (n, d) → (n, d).

Source: G. Parascandolo, A. Neitz, A. Orvieto, L. Gresele, B. Schölkopf, "Learning Explanations that are Hard to Vary", ICLR 2021,
the AND-mask; clients take the place of environments.

Deviations: the comparison is exact (16 against 4 of 20 rows reach τ = 0.6). sign(0) = 0 counts as no agreement. Every row is
masked and keeps its weight, which gives the same mean and lets other stages follow: ``and_mask + trimmed_mean(trim_fraction=0.45)``
is ``invariant``.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[1.0, 1.0], [2.0, -2.0], [3.0, 3.0]]), torch.ones(3), torch.arange(3))
>>> and_mask(mask_threshold=0.6).apply(updates, None, None)[0].rows.tolist()
[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, stateless
from backstop.platform.params import Range

VERSION = 2


def and_mask(
    *,
    mask_threshold: Annotated[float, Range(0, 1, search=(0.1, 0.9)), "least |mean of the signs| that lets a coordinate move, τ"] = 0.6,
) -> Defense:
    """All rows with the disputed coordinates set to zero."""

    def masked(updates: Updates) -> Updates:
        return updates._replace(rows=updates.rows.where(robust.agree(updates.rows, mask_threshold), 0.0))

    return stateless(masked)
