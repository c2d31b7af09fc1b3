"""BapFL: malicious clients poison the shared part of the model alone, before the heads of others.

for each local step with clean samples D and poisoned samples D* of its batch:
    (φ, h) ← (φ, h) - η ∇ CE(f(φ, h); D)
    φ ← φ - η ∇_φ ½ [CE(f(φ, h + ξ); D*) + CE(f(φ, h); D*)],   ξ ~ N(0, σ²)

h is what no client sends, where the defense says so, else the head. It stays that of a clean model,
so that φ has to carry the backdoor by itself, and ξ stands for the heads of honest clients, which
the adversary does not see.

Shapes: noise (d,), 0 outside h; params (d,) → update (d,).

Source: T. Ye, C. Chen, Y. Wang, X. Li, M. Gao, "BapFL: You Can Backdoor Personalized Federated
Learning", ACM Transactions on Knowledge Discovery from Data 18(7), 2024.

Deviations: the experiment's own optimizer takes both kinds of step, each kind with a momentum of
its own; the authors clip every gradient to length 10. Their model is in training mode; here it is
in evaluation mode, as in every local training of an attack, so batch normalization uses the
statistics that the client has kept. Their choice of attackers, which all have samples of the target
class, is left to the experiment, and so is the share of poisoned samples, 20 of a batch with them,
which the trigger's stage says. Bounds and scaling are stages of their own (``pgd``,
``model_replacement``); for such a bound each step is the first.

Checked: both kinds of step, the noise, what it is on and its σ of 0.2, and that clean samples come
first, against the authors' code (BapFL/code, ``algorithm/bapfl/client.py``). Authors and venue are
remembered.

Example:
>>> import torch
>>> from backstop.platform.contract import Slot
>>> _own(None, (Slot("head.weight", 2, (1, 2)),), torch.zeros(5))
tensor([False, False,  True,  True, False])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, Memory, Samples, Slot, Step, TrainView
from backstop.platform.params import Range

VERSION = 1
KNOWS = "own"
STRENGTH = None
TRIGGER = False


def bapfl(
    *,
    sigma: Annotated[
        float,
        Range(0, 100, search=(0.01, 1)),
        "standard deviation of the noise on what is private, σ",
    ] = 0.2,
) -> Attack:
    """Local training that leaves the private part clean."""

    def train(_: None, view: TrainView) -> Tensor:
        private = _own(view.private, view.head, view.params)

        def learn(params: Tensor, step: Step) -> Tensor:
            return view.loss(view.model(params, step.clean.x), step.clean.y)

        def implant(params: Tensor, step: Step) -> Tensor:
            params = torch.where(private, params.detach(), params)
            noise = torch.randn(len(params), generator=view.generator).to(params) * private
            noised = view.loss(view.model(params + sigma * noise, step.poisoned.x), step.poisoned.y)
            return (noised + view.loss(view.model(params, step.poisoned.x), step.poisoned.y)) / 2

        params, cleanly, poisonously = view.params, Memory(), Memory()
        for step in map(_parted, view.steps):
            if len(step.clean.y):
                params = view.minimise(learn, params, [step], memory=cleanly)
            if len(step.poisoned.y):
                moved = view.minimise(implant, params, [step], memory=poisonously)
                params = torch.where(private, params, moved)
        return params - view.params

    return Attack(train=train)


def _own(private: Tensor | None, head: Sequence[Slot], like: Tensor) -> Tensor:
    """What stays clean, (d,) bool."""
    return _covered(head, like) if private is None else private


def _covered(slots: Iterable[Slot], like: Tensor) -> Tensor:
    covered = torch.zeros_like(like, dtype=torch.bool)
    for slot in slots:
        covered[slot.span] = True
    return covered


def _parted(step: Step) -> Step:
    """The samples of a batch that are not poisoned, and those that are."""
    (x, y), (attacked, target) = step
    same = (attacked == x).flatten(1).all(1) & (target == y)
    return Step(Samples(x[same], y[same]), step.changed)
