"""Mimic: all malicious clients copy one honest client, so that it counts more than the others.

u_i <- u_*,   * = argmax_j |zᵀ (u_j - μ)|,   z = argmax_{‖z‖ = 1} zᵀ (Σ_j (u_j - μ)(u_j - μ)ᵀ) z

with j over the honest clients and μ the mean of their updates: the one that lies farthest out in
the direction in which they differ most.

Shapes: rows (m, d) → (m, d), all alike; honest (n - m, d).

Source: S. P. Karimireddy, L. He, M. Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets
via Bucketing", ICLR 2022, the mimic attack.

Deviations: the authors learn z over the first rounds, from a random start, and keep copying one
client, which takes part in every round. Here cohorts change: z and the client are those of the
round. The authors copy argmax_j zᵀ u_j, signed and not centered: which end of the line is copied
then hangs on the sign that z happened to be given, and what all clients share counts too. Here it
is the larger deviation from the mean on either side, which does not depend on that sign. A client
fixed in advance, the authors' other form, is another common definition. The copies are honest rows
by themselves: they do harm only where the clients' data differ, on nearly IID data hardly any.
Where no honest client takes part, a malicious one is copied.

Checked: against the authors' code (codes/attacks/mimic.py of their repository): how z is learned
and whom it picks.

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view
>>> view = attack_view(honest=torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [9.0, 0.0]]))
>>> mimic().craft(None, torch.zeros(2, 2), view)
tensor([[9., 0.],
        [9., 0.]])
"""

from __future__ import annotations

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Attack, AttackView
from backstop.platform.threats.rehearsal import benign_rows

VERSION = 1
KNOWS = "all"
STRENGTH = None
TRIGGER = False
UNTARGETED = True


def mimic() -> Attack:
    """Copies of the most extreme honest row."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        benign = benign_rows(rows, view)
        inner = robust.centred_products(robust.distances(benign))
        along = torch.linalg.eigh(inner).eigenvectors[:, -1]  # zᵀ (u_j - μ) up to a common factor
        return benign[along.abs().argmax()].repeat(len(rows), 1)

    return Attack(craft=craft)
