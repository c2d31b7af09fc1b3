"""One client after another, on the federation's replica of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform import seeds
from backstop.platform.training.client_rules import (
    Round,
    Rules,
    Sheet,
    StepKind,
    attacking_steps,
    plain_steps,
)
from backstop.platform.training.federation import Federation
from backstop.platform.training.stage_errors import located

GradientRule = Callable[[Tensor, Tensor], Tensor]  # (gradient (d,), delta (d,)) → gradient


def train_loop(
    here: Round,
    clients: Sequence[int],
    sheet: Sheet,
) -> None:
    """Train the clients one by one."""
    replica, start = here.federation.replica, (here.params, here.buffers)
    for client in clients:
        with located(here.round_index, client):
            loss = _train_client(here, client)
        sheet.write(client, (replica.params, replica.buffers), start, loss)


def _train_client(here: Round, client: int) -> Tensor:
    """Leave one client's parameters and buffers in the replica; its mean loss."""
    federation = here.federation
    rules = Rules(here, client)
    if client in here.attackers:
        kind = attacking_steps(federation, here.state)
    else:
        kind = plain_steps(federation)
    plan = here.batches(client)
    batches = rules.steps(federation, plan, stored=kind.objective is None)
    federation.replica.load(here.params, here.buffers)
    dropout = ("dropout", federation.draw_round(here.round_index), client)
    return descend(federation, batches, here.params, kind, dropout, _gradient_rule(here, rules))


def _gradient_rule(here: Round, rules: Rules) -> GradientRule | None:
    """What the defense makes of the gradients of an honest client."""
    local, noise = here.federation.defense.local, rules.noise
    rule = local.gradient if local else None
    if rule is None or noise is None:
        return None
    return lambda grad, delta: rule(grad, delta, noise)


def descend(
    federation: Federation,
    batches: Iterable[tuple[Tensor, Tensor]],
    start: Tensor,
    kind: StepKind,
    dropout: tuple[str | int, ...],
    rule: GradientRule | None = None,
) -> Tensor:
    """Local steps on the replica, in place; the mean loss. ``dropout`` names its draws."""
    replica, net = federation.replica, federation.net
    memory = kind.optimizer.start(replica.params)
    losses: list[Tensor] = []
    counts: list[float] = []
    for x, y in batches:
        replica.grad.zero_()
        if net.keys:
            replica.rekey(seeds.stream(federation.spec.seed, *dropout, len(losses)))
        logits = replica(x)
        loss = cross_entropy(logits, y, net.class_weights)
        losses.append(loss.detach())
        counts.append(float(len(y)))
        if kind.objective is None:
            loss.backward()
        else:
            delta = (replica.params - start).requires_grad_()
            (loss + kind.objective(delta, x, y, logits)).backward()
            if delta.grad is not None:
                replica.grad += delta.grad
        if rule is not None:
            replica.grad.copy_(rule(replica.grad, replica.params - start))
        memory = kind.optimizer.step(replica.params, replica.grad, memory, kind.pace)
        if kind.constrain is not None:
            held = kind.constrain(replica.params - start, len(losses))
            replica.params.copy_(start + held)
    weight = torch.tensor(counts, device=start.device)
    return (torch.stack(losses) * weight).sum() / weight.sum()
