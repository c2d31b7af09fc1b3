"""AND-mask alone: coordinates on whose direction too few rows agree stay where they are.

m_j(τ) = 1[ |1/n Σ_i sign(u_ij)| >= τ ],   u_i <- m(τ) ⊙ u_i
rescaled: layer by layer u_i <- u_i / mean_j m_j

Shapes: rows (n, d) → (n, d).

Source: G. Parascandolo, A. Neitz, A. Orvieto, L. Gresele, B. Schölkopf, "Learning Explanations that
are Hard to Vary", ICLR 2021, the AND-mask; clients take the place of environments.

Deviations: the comparison is exact (16 against 4 of 20 rows reach τ = 0.6). sign(0) = 0 counts as
no agreement. Every row is masked and keeps its weight, which gives the same mean and lets other
stages follow: ``and_mask + trimmed_mean(trim_fraction=0.45)`` is ``invariant``. The default of τ is
that of the invariant aggregator; the authors' own commands take 1.0 and 0.2. Their code can divide
what is left of a parameter tensor by the share of its coordinates that are left, so that a sparse
mask does not slow training down, and both of those commands do: here that is ``rescale=true``, off
by default, since what would keep a backdoor out is made longer by it too.

Checked: mask, thresholds and rescaling against the authors' code
(learning-explanations-hard-to-vary, the AND-mask and the commands of its README).

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(
...     torch.tensor([[1.0, 1.0], [2.0, -2.0], [3.0, 3.0]]), torch.ones(3), torch.arange(3)
... )
>>> and_mask(mask_threshold=0.6).apply(updates, None, None)[0].rows.tolist()
[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Slot, Updates
from backstop.platform.params import Range

VERSION = 2


def and_mask(
    *,
    mask_threshold: Annotated[
        float,
        Range(0, 1, search=(0.1, 0.9)),
        "least |mean of the signs| that lets a coordinate move, τ",
    ] = 0.6,
    rescale: Annotated[
        bool, "divide what is left of a parameter tensor by the share that is left of it"
    ] = False,
) -> Defense:
    """All rows with the disputed coordinates set to zero."""

    def masked(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        agreed = robust.agree(updates.rows, mask_threshold)
        rows = updates.rows.where(agreed, 0.0)
        if rescale:
            rows = _rescaled(rows, agreed, view.layout)
        return updates._replace(rows=rows), state

    # a share of a tensor is counted on all of its coordinates
    return Defense(apply=masked, scope="rows" if rescale else "coordinates")


def _rescaled(rows: Tensor, kept: Tensor, layout: Sequence[Slot]) -> Tensor:
    """Rows (n, d), each tensor's part divided by the share of its coordinates that are kept (d,);
    huge values stay finite.
    """
    share = torch.ones_like(rows[0])
    for slot in layout:
        share[slot.span] = kept[slot.span].float().mean()
    largest = torch.finfo(rows.dtype).max
    return (rows / share.where(kept, 1.0)).clamp(-largest, largest)
