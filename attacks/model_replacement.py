"""Model replacement: the malicious update is scaled up so that it survives the average.

u_i <- γ · u_i;   b_i <- γ · b_i

Shapes: rows (m, d) → (m, d); changes b of the floating-point buffers (m, e) → (m, e).

Source: E. Bagdasaryan, A. Veit, Y. Hua, D. Estrin, V. Shmatikov, "How To Backdoor Federated
Learning", AISTATS 2020, equation 3: the attacker sends γ (X - G) + G, where γ = n / η replaces the
global model by X when the honest updates cancel out.

Deviations: none in what is scaled, which is the whole state, batch-norm statistics included. A
running variance that γ takes below zero makes the model's outputs NaN, which count as no class. γ
is the parameter itself, the same for every malicious client. It scales whatever the stages before
it produced, so it is combined with one that poisons: ``badnets + model_replacement(strength=10)``.

Checked: the factor and what it scales against the authors' code (backdoor_federated_learning).

Example:
>>> import torch
>>> model_replacement(strength=10.0).craft(None, torch.tensor([[1.0, -2.0]]), None)
tensor([[ 10., -20.]])
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform.contract import Attack
from backstop.platform.params import Range

VERSION = 2
KNOWS = "own"
STRENGTH = "strength"
TRIGGER = False


def model_replacement(
    *,
    strength: Annotated[
        float, Range(1, 1e4, log=True, search=(1, 100)), "factor on malicious updates, γ"
    ] = 5.0,
) -> Attack:
    """All malicious rows times a factor, and what malicious clients send of the buffers too."""
    return Attack(
        craft=lambda _, rows, view: rows * strength,
        craft_buffers=lambda _, changes, view: changes * strength,
    )
