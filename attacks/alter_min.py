"""Alternating minimization: steps that look honest take turns with steps towards the target,
boosted.

each turn, from w:
  w ← local steps on the stealth loss  L(D_m) + ρ/2 ‖w - G - δ_ben‖²
  w ← w + λ · δ,   δ = one local step on the targeted loss L(D_aux)

The distance is over weight matrices alone (tensors of two dimensions or more), and λ is 1 on all
others. Both kinds of steps have an optimizer of their own, whose momentum goes on from turn to
turn.

Shapes: w, G, δ, δ_ben (d,).

Source: A. N. Bhagoji, S. Chakraborty, P. Mittal, S. Calo, "Analyzing Federated Learning through an
Adversarial Lens", ICML 2019, the sections on explicit boosting, stealthy model poisoning and
alternating minimization. Order, distance and defaults are those of its authors' code: ten stealth
steps a turn, λ = 10, ρ = 1e-4.

Deviations: D_aux is not a few chosen samples but what the stages of the attack have poisoned in the
batches of the turn, D_m is the same batches clean; without a poisoned sample a turn is stealth
alone. The turns end with the client's local steps, not when both losses are low. δ_ben is the
update of this client's own clean training, the form that the authors' code recommends; the mean of
the others' updates of the round before, another form of theirs, needs what it does not see.
``order=target_first`` lets each turn begin with its boosted step, so that the update ends with
stealth steps that undo much of it. On small models trained by SGD the authors' ρ does hardly
anything; 1 draws their updates visibly to an honest one.

Checked: against the authors' code (malicious_agent.py, dist_utils.py).

Cost: twice the local steps of an honest client, and one for each turn.

Example: a 2 x 2 matrix is boosted, a bias is not
>>> import torch
>>> from backstop.platform.contract import Samples, Slot, Step
>>> _matrices((Slot("weight", 0, (2, 2)), Slot("bias", 4, (2,))), torch.zeros(6)).tolist()
[True, True, True, True, False, False]
>>> clean = Samples(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 2]))
>>> poisoned = Samples(torch.tensor([[9.0], [2.0], [3.0]]), torch.tensor([0, 1, 0]))
>>> _changed([Step(clean, poisoned)])  # an input, and a label
Samples(x=tensor([[9.],
        [3.]]), y=tensor([0, 0]))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from backstop.platform.contract import Attack, Memory, Samples, Slot, Step, TrainView
from backstop.platform.params import Range

VERSION = 2
KNOWS = "own"
STRENGTH = "boost"
TRIGGER = False


def _changed(steps: Sequence[Step]) -> Samples:
    """The poisoned samples of these steps together."""
    return Samples(
        *(torch.cat(column) for column in zip(*(step.changed for step in steps), strict=True))
    )


def _matrices(layout: Sequence[Slot], params: Tensor) -> Tensor:
    """True (d,) for parameters that stand in a tensor of two dimensions or more."""
    where = torch.zeros_like(params, dtype=torch.bool)
    for slot in layout:
        where[slot.span] = len(slot.shape) > 1
    return where


def alter_min(
    *,
    boost: Annotated[
        float, Range(1, 1e4, log=True, search=(1, 100)), "factor on the targeted steps, λ"
    ] = 10.0,
    rho: Annotated[
        float, Range(0, 1e4, search=(0, 1)), "weight of the distance to an honest update, ρ"
    ] = 1e-4,
    ratio: Annotated[
        int, Range(1, 10**6, search=(1, 20)), "stealth steps for each targeted step"
    ] = 10,
    order: Annotated[
        Literal["stealth_first", "target_first"],
        "what a turn begins with; stealth_first: the update ends with a boosted step",
    ] = "stealth_first",
) -> Attack:
    """Local training that alternates between two losses."""

    def train(_: None, view: TrainView) -> Tensor:
        matrix = _matrices(view.layout, view.params)
        factor = torch.where(matrix, boost, 1.0)
        stealth, aim = Memory(), Memory()

        def honest(params: Tensor, step: Step) -> Tensor:
            return view.loss(view.model(params, step.clean.x), step.clean.y)

        def targeted(params: Tensor, step: Step) -> Tensor:
            return view.loss(view.model(params, step.poisoned.x), step.poisoned.y)

        benign = view.minimise(honest)

        def stealthy(params: Tensor, step: Step) -> Tensor:
            distance = ((params - benign) * matrix).square().sum()
            return honest(params, step) + rho / 2 * distance

        def hide(params: Tensor, turn: Sequence[Step]) -> Tensor:
            return view.minimise(stealthy, params, turn, memory=stealth)

        def strike(params: Tensor, turn: Sequence[Step]) -> Tensor:
            target = _changed(turn)
            if not len(target.y):
                return params
            moved = view.minimise(targeted, params, [Step(target, target)], memory=aim)
            return params + factor * (moved - params)

        moves = (hide, strike) if order == "stealth_first" else (strike, hide)
        params = view.params
        for start in range(0, len(view.steps), ratio):
            for move in moves:
                params = move(params, view.steps[start : start + ratio])
        return params - view.params

    return Attack(train=train)
