"""Sign flip: malicious clients send the opposite of their update, scaled up.

u_i <- -γ · u_i

Shapes: rows (m, d) → (m, d).

Source: L. Li, W. Xu, T. Chen, G. B. Giannakis, Q. Ling, "RSA: Byzantine-Robust Stochastic
Aggregation Methods for Distributed Learning from Heterogeneous Datasets", AAAI 2019, the
sign-flipping attack of the experiments.

Deviations: what is flipped is the update, not the model. The default γ = 4 brings an average to a
stand where a fifth of the weight is malicious and all updates are alike; more turns it round.
γ = 1, the bare flip, is another common definition. It flips whatever the stages before it produced.

Checked: the flip against public re-implementations, which take γ = 1; the paper's γ is remembered.

Example:
>>> import torch
>>> sign_flip(strength=4.0).craft(None, torch.tensor([[1.0, -2.0]]), None)
tensor([[-4.,  8.]])
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform.contract import Attack
from backstop.platform.params import Range

VERSION = 1
KNOWS = "own"
STRENGTH = "strength"
TRIGGER = False
UNTARGETED = True


def sign_flip(
    *,
    strength: Annotated[
        float,
        Range(0, 1e4, log=True, low_open=True, search=(0.5, 50)),
        "factor on the flipped update, γ",
    ] = 4.0,
) -> Attack:
    """All malicious rows times a negative factor; what leaves the range of float32 is its largest
    number.
    """
    return Attack(craft=lambda _, rows, view: (rows * -strength).nan_to_num())
