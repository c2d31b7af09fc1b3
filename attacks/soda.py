"""SoDa: malicious clients stay near the model that they would have trained as honest ones, in
length and in direction; the backdoor itself is inputs of another distribution.

L = CE + λ₂ ‖θ - θ'‖₂ + λ_c (1 - cos(θ, θ')),   θ' = G + h

h is what the client's honest training gives (the self-reference), on the same batches in the same
order, and G the global model; θ = G + delta.

Shapes: delta (d,), h (m, d), one for each malicious client of the round.

Source: J. Xu, Z. Zhang, R. Hu, "On the Out-of-Distribution Backdoor Attack for Federated Learning",
MobiHoc 2025, SoDa, which regularizes magnitude and direction of malicious local models. Its inputs,
those of the out-of-distribution attack, are another data set's, labeled y*: here a stage before,
``edge_case(pool=external)`` where the dataset has inputs of its own kind (digits of another script
for MNIST), or any trigger.

As published: λ₂ = 0.1, λ_c = 100; 30 % of a malicious client's samples are inputs of MNIST,
Fashion-MNIST or SVHN, the others those of CIFAR-10 or CIFAR-100.

Deviations: the objective of a stage is one for all malicious clients and does not know which of
them it is asked for, so the reference is the mean of theirs, h̄; with one attacker in the round, or
equal clients, it is the same. Buffers are not held near those of the reference; nor are the
authors'. Samples are replaced in each batch, theirs once before the training.

Checked: against the authors' code (agent.py: local_train; federated.py): both terms, their weights,
and that they compare whole models, not updates.

Cost: a clean local training for each malicious client.

Example: θ' = (2, 0) and θ = (0, 2): √8 apart, at a right angle.
>>> import torch
>>> attack, reference = soda(distance=0.5, cosine=3.0), torch.tensor([1.0, 0.0])
>>> state = _Reference(torch.tensor([1.0, 0.0]), reference)
>>> round(attack.objective(state, torch.tensor([-1.0, 2.0]), None, None, None).item(), 4)
4.4142
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range

VERSION = 1
KNOWS = "own"
STRENGTH = None
TRIGGER = False


class _Reference(NamedTuple):
    model: Tensor  # (d,) G
    honest: Tensor  # (d,) h̄


def soda(
    *,
    distance: Annotated[
        float,
        Range(0, 1e3, search=(0.01, 1)),
        "weight of the distance to the honest model, λ₂",
    ] = 0.1,
    cosine: Annotated[
        float,
        Range(0, 1e5, search=(1, 1e3)),
        "weight of the cosine distance to the honest model, λ_c",
    ] = 100.0,
) -> Attack[_Reference]:
    """Two terms of the loss. The state is the global model and the honest update."""

    def init(view: AttackView) -> _Reference:
        return _Reference(view.params, torch.zeros_like(view.params))

    def plan(state: _Reference, view: AttackView) -> _Reference:
        if not len(view.members):
            return state
        return _Reference(view.params, view.unpoisoned().mean(0))

    def objective(
        own: _Reference, delta: Tensor, _x: Tensor, _y: Tensor, _logits: Tensor
    ) -> Tensor:
        away = torch.linalg.vector_norm(delta - own.honest)
        likeness = cosine_similarity(own.model + delta, own.model + own.honest, dim=0)
        added: Tensor = distance * away + cosine * (1 - likeness)
        return added

    return Attack(init=init, plan=plan, objective=objective)
