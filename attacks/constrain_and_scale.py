"""Constrain-and-scale: the local loss also asks the malicious model not to look unusual; then the
update is scaled up.

L = argmin  α · CE + (1 - α) · L_ano(L, G),   u_i ← γ · (L - G),   b_i ← γ · b_i for buffers
L_ano = ‖L - G‖₂  or  10³ · (1 - cos(γ (L - G) + G, G)), the cosine of the model as it is sent
η ← η / 50 where more than 0.2 of the poisoned samples have the wanted label at G already
η ← η / 5000 where more than 0.6 of them have

Shapes: delta = L - G (d,); logits (b, classes), y (b,); rows (m, d) → (m, d).

Source: E. Bagdasaryan, A. Veit, Y. Hua, D. Estrin, V. Shmatikov, "How To Backdoor Federated
Learning", AISTATS 2020, algorithm 1 (constrain-and-scale), which leaves L_ano open: whatever a
defense looks at. The cosine of the model as sent, its weight and the two steps of the rate are
those of the authors' code.

Deviations: the success of the backdoor is taken on the samples that the stages before poison in
this round's malicious clients' data and that had another label, where the authors have a set of
their own. Of several malicious clients each scales by γ; the authors divide γ by their number.
Their attacker stops early and lets its rate fall within a round too; here it does not, and
``overtrain`` sets its epochs and rate. Their steps go with γ = 100 and one attacked round. Where γ
is small and rounds are many they hold the backdoor between 0.2 and 0.6; ``falling=false`` keeps the
rate. CE has the class weights of local training. The honest loss is there already, so (α - 1) · CE
is added to it: not to be combined with a stage whose local training has another loss.

Checked: against the authors' code (backdoor_federated_learning: training.py, helper.py): both
distances, of which their training takes the first, the factor, the steps of the rate.

Cost: one evaluation on the data of this round's malicious clients, once a round.

Example:
>>> import torch
>>> attack = constrain_and_scale(alpha=0.75, strength=2.0)
>>> logits, y = torch.zeros(1, 4), torch.tensor([1])  # the cross-entropy is log 4
>>> added = attack.objective(_Plan(torch.zeros(2)), torch.tensor([3.0, 4.0]), None, y, logits)
>>> torch.log(torch.tensor(4.0)) + added, 0.75 * torch.log(torch.tensor(4.0)) + 0.25 * 5
(tensor(2.2897), tensor(2.2897))
>>> attack.craft(None, torch.tensor([[1.0, -2.0]]), None)
tensor([[ 2., -4.]])
>>> round(_unlike(torch.tensor([0.0, 0.1]), torch.tensor([1.0, 0.0]), 5.0).item(), 1)
105.6
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from backstop.platform.contract import Attack, AttackView, Samples
from backstop.platform.params import Range
from backstop.platform.threats.collusion import own_batches

VERSION = 2
KNOWS = "own"
STRENGTH = "strength"
TRIGGER = False

_WEIGHT = 1e3  # of the cosine distance, as published
# (success of the backdoor, divisor of the rate above it), as published
_STEPS = ((0.2, 50.0), (0.6, 100.0))
_PIECE = 256  # samples that are evaluated at once


class _Plan(NamedTuple):
    model: Tensor  # (d,) the global model of the round
    weights: Tensor | None = None  # (classes,) of the classes in the loss
    pace: float = 1.0  # factor on the learning rate


def _unlike(delta: Tensor, model: Tensor, strength: float) -> Tensor:
    """The cosine distance of the model as it is sent from the global one, weighed."""
    return _WEIGHT * (1 - cosine_similarity(strength * delta + model, model, dim=0))


def _success(view: AttackView) -> float:
    """The share of this round's poisoned samples that have the wanted label already; 0 where no
    label was changed.
    """
    hits = total = 0
    for index, clean in own_batches(view, _PIECE):
        poisoned = Samples(*view.poison(*clean, index))
        attacked = poisoned.y != clean.y
        if attacked.any():
            target = poisoned.y[attacked]
            predicted = view.model(view.params, poisoned.x[attacked]).argmax(1)
            hits += int((predicted == target).sum())
            total += len(target)
    return hits / max(total, 1)


def _slower(success: float) -> float:
    """The factor on the rate.

    >>> _slower(0.2), _slower(0.5), _slower(0.7)
    (1.0, 0.02, 0.0002)
    """
    factor = 1.0
    for reached, divisor in _STEPS:
        if success > reached:
            factor /= divisor
    return factor


def constrain_and_scale(
    *,
    alpha: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.1, 1)),
        "weight of the classification loss, α; the rest is stealth",
    ] = 0.5,
    strength: Annotated[
        float, Range(1, 1e4, log=True, search=(1, 100)), "factor on malicious updates, γ"
    ] = 5.0,
    distance: Annotated[
        Literal["l2", "cosine"], "between the malicious and the global model"
    ] = "l2",
    falling: Annotated[
        bool, "the rate is lower where the backdoor is in the global model already"
    ] = True,
) -> Attack:
    """A stealthy loss and a factor. The state is what the round's local training needs."""

    def plan(_: _Plan | None, view: AttackView) -> _Plan:
        pace = _slower(_success(view)) if falling else 1.0
        return _Plan(view.params, view.class_weights, pace)

    def objective(own: _Plan, delta: Tensor, _x: Tensor, y: Tensor, logits: Tensor) -> Tensor:
        unusual = (
            _unlike(delta, own.model, strength)
            if distance == "cosine"
            else torch.linalg.vector_norm(delta)
        )
        return (alpha - 1) * cross_entropy(logits, y, own.weights) + (1 - alpha) * unusual

    return Attack(
        plan=plan,
        objective=objective,
        pace=lambda own: own.pace,
        craft=lambda _, rows, view: rows * strength,
        craft_buffers=lambda _, changes, view: changes * strength,
    )
