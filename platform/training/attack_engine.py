"""A malicious client whose attack brings its own local training. Buffers stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform.contract import Memory, Samples, Step, TrainView
from backstop.platform.training.client_rules import Round, Rules, Sheet, attacking_steps
from backstop.platform.training.stage_errors import located


def train_by_attack(
    here: Round,
    client: int,
    sheet: Sheet,
) -> None:
    """Train one attacker by the attack's ``train``."""
    train, keeping = here.federation.attack.train, here.federation.keeping
    assert train is not None
    here = here.begun_by(client)
    with located(here.round_index, client):
        view = _train_view(here, client)
        row = train(here.state, view).detach()
        loss = _mean_loss(view, here.params + row)
    moved = (here.params + row, here.buffers)
    sheet.place(client, row, loss)
    if keeping and keeping.private:
        sheet.keep(client, keeping.taken(moved))
        sheet.withhold(client, keeping.private)


def _train_view(here: Round, client: int) -> TrainView:
    class_weights = here.federation.net.class_weights
    shared = here.view(here.draws("malicious training", client))
    steps = _both_steps(here, client)
    return TrainView(
        **vars(shared),
        index=here.attackers[client],
        steps=steps,
        loss=lambda logits, y: cross_entropy(logits, y, class_weights),
        minimise=_Descent(here, shared.model, steps).minimise,
    )


def _both_steps(here: Round, client: int) -> tuple[Step, ...]:
    """The client's local steps with its batches as they are and as they are poisoned."""
    federation = here.federation
    batches = here.plan(client).batches
    as_honest = Rules(here._replace(attackers={}), client)
    as_attacker = Rules(here, client)
    clean = as_honest.steps(federation, batches)
    poisoned = as_attacker.steps(federation, batches)
    pairs = zip(clean, poisoned, strict=True)
    return tuple(Step(Samples(*one), Samples(*other)) for one, other in pairs)


def _mean_loss(view: TrainView, params: Tensor) -> Tensor:
    """The loss of the trained model on the poisoned batches."""
    losses = []
    with torch.no_grad():
        for step in view.steps:
            logits = view.model(params, step.poisoned.x)
            losses.append(view.loss(logits, step.poisoned.y))
    return torch.stack(losses).mean()


class _Descent(NamedTuple):
    """The spec's optimizer on a loss of the attack's own."""

    here: Round
    model: Callable[[Tensor, Tensor], Tensor]
    steps: tuple[Step, ...]  # the client's

    def minimise(
        self,
        loss: Callable[[Tensor, Step], Tensor],
        start: Tensor | None = None,
        steps: Sequence[Step] | None = None,
        rates: Sequence[float] | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """As :class:`~backstop.platform.contract.Minimize`."""
        steps = self.steps if steps is None else steps
        rates = [1.0] * len(steps) if rates is None else rates
        memory = memory or Memory()
        params = self.here.params
        vector = (params if start is None else start).detach().clone()
        kind = attacking_steps(self.here.federation, self.here.state)
        if memory.value is None:
            memory.value = kind.optimizer.start(vector)
        for count, (step, rate) in enumerate(zip(steps, rates, strict=True), 1):
            leaf = vector.clone().requires_grad_()
            value = loss(leaf, step)
            if kind.objective:
                logits = self.model(leaf, step.poisoned.x)
                value = value + kind.objective(leaf - params, *step.poisoned, logits)
            if not value.requires_grad:  # the loss of an encoder that the model does not have
                continue
            (grad,) = torch.autograd.grad(value, leaf)
            memory.value = kind.optimizer.step(vector, grad, memory.value, kind.pace * rate)
            if kind.constrain:
                vector = params + kind.constrain(vector - params, count)
        return vector
