"""A little is enough, the backdoor: the poisoned update, kept within the spread of the malicious
clients' own honest ones.

u_i <- clip(ū, μ - zσ, μ + zσ)  in each coordinate

with ū the mean of the malicious rows, and μ and σ mean and standard deviation over what the same
clients would have sent as honest ones, trained on the same batches in the same order.

Shapes: rows (m, d) → (m, d), all alike; h (m, d).

Source: M. Baruch, G. Baruch, Y. Goldberg, "A Little Is Enough: Circumventing Defenses For
Distributed Learning", NeurIPS 2019, the attack that introduces a backdoor. Its other attack, which
prevents convergence, is ``alie``.

Deviations: the poisoned update is that of the stages before, trained from the global model, each
client on its own batches. The authors train one network on the poison alone from where the honest
step has led, with a penalty on the squared distance, and take the honest mean off the way it went
from there (where adding it would lead to that network). z is their program's default, not that of
``alie``, which can be 0 for a few clients. One malicious client in a round has σ = 0 and sends
its honest update: it takes two.

Checked: against the authors' code (malicious.py, backdoor.py): whose values μ and σ are of, that σ
divides by m, the clipping, that all send the same, z = 1.5.

Cost: one honest local training for each malicious client of the round.

Example:
>>> import torch
>>> from dataclasses import replace
>>> from backstop.platform.examples import attack_view
>>> own = torch.tensor([[0.0, 1.0], [2.0, 1.0]])  # what honest clients would send
>>> view = replace(attack_view(), unpoisoned=lambda: own)
>>> alie_backdoor(z=1.5).craft(None, torch.tensor([[9.0, 9.0], [3.0, 9.0]]), view)  # 1 + 1.5 · 1
tensor([[2.5000, 1.0000],
        [2.5000, 1.0000]])
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.collusion import all_alike

VERSION = 1
KNOWS = "own"
STRENGTH = "z"
TRIGGER = False


def alie_backdoor(
    *,
    z: Annotated[
        float, Range(0, 1e4, low_open=True, search=(0.5, 4)), "standard deviations from the mean"
    ] = 1.5,
) -> Attack:
    """The poisoned mean, clipped to what the malicious clients' honest updates spread over."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        honest = view.unpoisoned().double()
        mean, reach = honest.mean(0), z * honest.std(0, correction=0)
        poisoned = rows.double().mean(0)
        return all_alike(poisoned.clamp(mean - reach, mean + reach), rows)

    return Attack(craft=craft)
