"""Sign-aligned: malicious clients vote as one for their direction, as far out as the order
statistics of a trimmed mean can follow.

u_i <- clip(h̄ + γ (ū - h̄), -2a, 2a),   a = max_k |h_k|  in each coordinate

with ū the mean of the malicious rows and h_k what malicious client k would have sent as an honest
one, trained on the same batches in the same order: ū - h̄ is what the poison alone adds.

It is the best answer to ``invariant``, g = 1[|Σ_i sign(u_i)| >= τn] · mean of the places b … n-b-1
in ascending order, b = ⌊βn⌋. In one coordinate let m rows hold the value v and the others be
x_0 <= … <= x_{n-m-1}, with S the sum of their signs:

* window: the mean is over x_{b-m} … x_{n-m-b-1} for v <= x_{b-m} and over x_b … x_{n-b-1} for v >=
  x_{n-b-1}: m places farther. In between it never falls as v grows, and beyond these two values it
  stands still (m <= b);
* mask: the sum of signs is S - m, S or S + m for v < 0, = 0, > 0. At most (1-τ)n/2 rows oppose an
  open coordinate; with (1-τ)/2 <= β no kept value is of their sign. So g never falls as v grows,
  closed coordinates included;
* hence for every linear aim d the best v lies on the side of d_j, past zero and past the window's
  edge. Where honest clients are for it, S sign(d_j) >= τn - m, this opens the coordinate and moves
  it to the edge; where they are against it, it closes the coordinate unless |S| >= τn + m. No
  majority is as large once m > (1-τ)n/2: from there on the malicious clients have a veto on
  everything.

None of it depends on τ or β, so neither is a parameter: whoever votes so need not know them. Voting
with the majority and staying harmless elsewhere is not better: it keeps open the coordinates in
which honest clients undo the backdoor.

Shapes: rows (m, d) → (m, d), all alike; h (m, d).

Source: of this project, as the worst case for ``invariant`` (X. Wang, D. Dimitriadis, S. Koyejo,
S. Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks", AISTATS 2024).

Deviations: the exact edges need the honest rows; 2a is past them nearly always, at no cost as the
aggregate stands still there. With γ = 1 the rows are the malicious mean; with more γ more
coordinates follow the poison against the honest part of the training.

Checked: the derivation against the defense itself, value by value, in this project's tests.

Cost: one honest local training for each malicious client of the round.

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view
>>> own = torch.tensor([1.0, -1.0, 2.0])  # what an honest client would send
>>> view = attack_view(update=own)
>>> # clip([6, -3.5, -3], ±[2, 2, 4])
>>> sign_aligned(strength=10.0).craft(None, torch.tensor([[1.5, -1.25, 1.5]]), view)
tensor([[ 2., -2., -3.]])
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.collusion import all_alike

VERSION = 2
KNOWS = "own"
STRENGTH = "strength"
TRIGGER = False

# times the largest own honest value: past the edges, and no larger than an honest client's value
# may well be
_REACH = 2.0


def sign_aligned(
    *,
    strength: Annotated[
        float,
        Range(0, 1e6, search=(1, 30)),
        "factor on what the poison adds to an honest update, γ",
    ] = 10.0,
) -> Attack:
    """All malicious rows alike, on the side of the poison."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        honest = view.unpoisoned()
        mean, limit = honest.mean(0), _REACH * honest.abs().amax(0)
        pushed = mean + strength * (rows.mean(0) - mean)
        return all_alike(pushed.clamp(-limit, limit), rows)

    return Attack(craft=craft)
