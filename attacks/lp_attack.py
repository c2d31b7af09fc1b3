"""LP attack: malicious clients send their poisoned layers only where the backdoor lives, honest
ones elsewhere.

u_i <- v_i ⊙ (λ m_i + max(0, 1 - λ) h_i) + (1 - v_i) ⊙ h_i,   v_i = 1 on the critical layers
s(θ) = share of poisoned samples with the wanted label at θ
1. layers l by s(G + m_i with h_i in layer l), the lowest first
2. v_i takes them in this order until s(G + h_i with m_i where v_i = 1) >= τ s(G + m_i)

m_i is the poisoned update of client i, h_i what it would have sent as an honest one, trained on the
same batches in the same order, G the global model. A layer is one parameter tensor: a weight, a
bias.

Shapes: rows m (m, d), h (m, d) → (m, d).

Source: H. Zhuang, M. Yu, H. Wang, Y. Hua, J. Li, X. Yuan, "Backdoor Federated Learning by Poisoning
Backdoor-Critical Layers", ICLR 2024, layer substitution analysis and the layer-wise poisoning
attack. The name is that of the authors' command, ``--attack lp_attack``.

As published: τ = 0.8; λ = 1, and 0.5 for the small network of Fashion-MNIST. The authors poison a
copy of each whole batch, ``badnets(share=0.5)`` here, with a square of 5 x 5 pixels.

Deviations: the analysis is done in each round on the rows of that round; the authors train two
models of their own for it, the malicious one from the converged benign one, judge them on a
quarter of the data held out, and do it again only where the layers known so far have lost success.
Here all poisoned samples of the malicious clients judge, at most 1024, as they are trained on.
Where the malicious model has no success one layer is poisoned, where nothing is poisoned none is;
the authors poison none in both cases. Buffers are sent as the poisoned training left them; the
authors send the benign ones.

Checked: against the authors' code (AttackerUtils.py, MaliciousUpdate.py: train_malicious_LPA;
Attacker.py: craft_model; options.py): both substitutions, their order and thresholds, λ. That the
paper takes the mean of simulated benign models for h_i is from Attacker.py too; the plain attack
there takes the client's own, as here.

Known to fail: where a layer is most of the model, so that its poison is as far from the honest rows
as all of it (docs/frontier.md has figures).

Cost: a clean local training for each malicious client, and for each of them one evaluation of at
most 1024 samples for each layer and for each critical one.

Example: the backdoor is in the second layer.
>>> import torch
>>> from backstop.platform.contract import Slot
>>> layout = (Slot("a", 0, (1,)), Slot("b", 1, (1,)))
>>> obeys = lambda params: float(params[1] > 1)
>>> honest, row = torch.tensor([1.0, 1.0]), torch.tensor([4.0, 3.0])
>>> _crafted(honest, row, torch.zeros(2), layout, obeys, 0.8, 1.0)
tensor([1., 3.])
>>> _crafted(honest, row, torch.zeros(2), layout, obeys, 0.8, 0.5)
tensor([1., 2.])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView, Slot
from backstop.platform.params import Range
from backstop.platform.threats.layers import (
    Success,
    critical_layers,
    poisoned_samples,
    success_on,
    with_layers,
)

VERSION = 1
KNOWS = "own"
STRENGTH = "strength"
TRIGGER = False


def _crafted(
    honest: Tensor,
    row: Tensor,
    params: Tensor,
    layout: Sequence[Slot],
    success: Success,
    threshold: float,
    strength: float,
) -> Tensor:
    """What a client (d,) sends whose poisoned update is ``row``."""
    layers = critical_layers(params + honest, params + row, layout, success, threshold)
    return with_layers(honest, strength * row + max(0.0, 1 - strength) * honest, layers)


def lp_attack(
    *,
    strength: Annotated[
        float,
        Range(0, 1e4, low_open=True, log=True, search=(0.1, 10)),
        "factor on critical layers, λ; below 1 the rest is honest",
    ] = 1.0,
    threshold: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.5, 1)),
        "share of the malicious model's success that the critical layers must bring, τ",
    ] = 0.8,
) -> Attack:
    """Honest rows with the critical layers of poisoned ones."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        honest, poisoned = view.unpoisoned(), poisoned_samples(view)
        if not len(poisoned.y):
            return honest
        success = success_on(view, poisoned)
        crafted = [
            _crafted(clean, row, view.params, view.layout, success, threshold, strength)
            for clean, row in zip(honest, rows, strict=True)
        ]
        return torch.stack(crafted).nan_to_num()

    return Attack(craft=craft)
