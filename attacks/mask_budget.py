"""Mask budget: malicious clients flip an AND-mask in the few coordinates where this helps them
most, and nowhere else.

u_ij <- sign(d_j) max_k |h_kj|  for j in J
J = the coordinates of largest |d_j h̄_j| among those that flip, the share ``budget`` of all at most

with h_k the honest rows, and d what the poison adds: the mean of the malicious rows minus that of
what the same clients would have sent as honest ones, trained on the same batches in the same order.

In coordinate j let S be the sum of the honest signs, M that of the malicious ones as they are. The
mask is open where |S + M| >= τn. With all m malicious signs on the side s = sign(d_j) the sum is
S + sm, up to 2m more than before, and the coordinate flips where

* it opens: |S + M| < τn and sS >= τn - m. The honest clients are for s and lack at most m votes;
  closed coordinates with sS < τn - m stay closed;
* it closes: |S + M| >= τn, sS < 0 and |S| < τn + m. Those against s, |S| net votes, lose m of them;
  once m > (1-τ)n/2 this closes even what all n - m honest clients agree on.

What a flip is worth is to first order the step that it allows or stops, about h̄_j, times d_j. All
other coordinates stay as trained.

Shapes: rows (m, d) → (m, d); honest (n - m, d).

Source: of this project, against the mask of ``and_mask`` and ``invariant`` (G. Parascandolo, A.
Neitz, A. Orvieto, L. Gresele, B. Schölkopf, "Learning Explanations that are Hard to Vary", ICLR
2021).

Deviations: it has to see the honest rows. Counted on honest updates of the malicious clients' own,
too many votes are misjudged for the flips to succeed; ``sign_aligned`` needs no counts.

Checked: the counts against the mask itself, coordinate by coordinate, in this project's tests.

Cost: one honest local training for each malicious client of the round.

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view
>>> honest = torch.tensor(
...     [[4.0, -1.0, -1.0], [1.0, -1.0, -1.0], [1.0, -1.0, -5.0], [-1.0, -1.0, 1.0]]
... )
>>> own = torch.tensor([-3.0, -3.0, -3.0])  # what an honest client would send
>>> view = attack_view(honest=honest, update=own)
>>> # 3 of 5 votes: S = 2 opens, -4 stays, -2 closes
>>> mask_budget(budget=1.0).craft(None, torch.tensor([[-1.0, -1.0, -1.0]]), view)
tensor([[ 4., -1.,  5.]])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.rehearsal import benign_rows

VERSION = 2
KNOWS = "all"
STRENGTH = "budget"
TRIGGER = False
EXEMPT = ("one row",)  # a lone row may have all its signs on the right side already


def mask_budget(
    *,
    mask_threshold: Annotated[
        float,
        Range(0, 1, search=(0.1, 0.9)),
        "least |mean of the signs| with which the defense lets a coordinate move, τ",
    ] = 0.6,
    budget: Annotated[
        float, Range(0, 1, search=(0.01, 0.2)), "share of all coordinates that may be flipped"
    ] = 0.1,
) -> Attack:
    """Malicious rows as trained, but for the coordinates worth flipping."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        honest = benign_rows(rows, view)
        own = view.unpoisoned()
        poison = (rows.mean(0) - own.mean(0)).nan_to_num()
        side, signs = poison.sign(), robust.sign_sum(honest)
        votes = robust.ceil_count(mask_threshold, len(rows) + len(honest))

        def moves(total: Tensor) -> Tensor:
            """Where the mask is open, and to which side."""
            return total.sign() * (total.abs() >= votes)

        flips = moves(signs + robust.sign_sum(rows)) != moves(signs + len(rows) * side)
        worth = (poison * honest.mean(0)).abs() * flips
        best = worth.argsort(descending=True, stable=True)[: robust.floor_count(budget, len(worth))]
        spent = torch.zeros_like(flips).index_fill(0, best, value=True) & (worth > 0)
        return torch.where(spent, side * honest.abs().amax(0), rows).nan_to_num()

    return Attack(craft=craft)
