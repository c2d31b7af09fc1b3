"""Alternating minimisation: steps towards the target, boosted, take turns with steps that look honest.

each turn, from w:
  w <- w + λ · δ,   δ = one local step on the targeted loss L(D_aux)
  w <- local steps on the stealth loss  L(D_m) + ρ ‖w - G - δ_ben‖₂

Shapes: w, G, δ, δ_ben (d,).

Source: A. N. Bhagoji, S. Chakraborty, P. Mittal, S. Calo, "Analyzing Federated Learning through an Adversarial Lens", ICML 2019,
the sections on explicit boosting, stealthy model poisoning and alternating minimization.

Deviations: D_aux is not a few chosen samples but what the stages of the attack have poisoned in the batches of the turn, D_m is the
same batches clean; without a poisoned sample a turn is stealth alone. δ_ben, in the paper the mean of the others' updates of the
round before, is the update of this client's own clean training: it sees no other updates. The turns end with the client's local steps,
not when both losses are low. λ and the stealth steps are the authors' for Fashion-MNIST and ten clients; their ρ of 1e-4 does nothing to
small models trained by SGD, so that the default is larger.

Cost: twice the local steps of an honest client, and one for each turn.

Example:
>>> import torch
>>> from backstop.platform.contract import Samples, Step
>>> clean = Samples(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 2]))
>>> _changed([Step(clean, Samples(torch.tensor([[9.0], [2.0], [3.0]]), torch.tensor([0, 1, 0])))])  # an input, and a label
Samples(x=tensor([[9.],
        [3.]]), y=tensor([0, 0]))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, Samples, Step, TrainView
from backstop.platform.params import Range

VERSION = 2
KNOWS = "own"
STRENGTH = "boost"
TRIGGER = False


def _changed(steps: Sequence[Step]) -> Samples:
    """The poisoned samples of these steps together."""
    return Samples(*(torch.cat(column) for column in zip(*(step.changed for step in steps), strict=True)))


def alter_min(
    *,
    boost: Annotated[float, Range(1, 1e4, log=True, search=(1, 100)), "factor on the targeted steps, λ"] = 10.0,
    rho: Annotated[float, Range(0, 1e4, search=(0, 1)), "weight of the distance to an honest update, ρ"] = 0.1,
    ratio: Annotated[int, Range(1, 10**6, search=(1, 20)), "stealth steps for each targeted step"] = 10,
) -> Attack:
    """Local training that alternates between two losses."""

    def train(_: None, view: TrainView) -> Tensor:
        def honest(params: Tensor, step: Step) -> Tensor:
            return view.loss(view.model(params, step.clean.x), step.clean.y)

        def targeted(params: Tensor, step: Step) -> Tensor:
            return view.loss(view.model(params, step.poisoned.x), step.poisoned.y)

        def stealthy(params: Tensor, step: Step) -> Tensor:
            return honest(params, step) + rho * torch.dist(params, benign)

        benign, params = view.minimise(honest), view.params
        for start in range(0, len(view.steps), ratio):
            turn = view.steps[start : start + ratio]
            target = _changed(turn)
            if len(target.y):
                moved = view.minimise(targeted, params, [Step(target, target)])
                params = params + boost * (moved - params)
            params = view.minimise(stealthy, params, turn)
        return params - view.params

    return Attack(train=train)
