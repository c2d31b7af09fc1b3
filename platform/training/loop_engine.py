"""One client after another, on the federation's replica of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform import seeds
from backstop.platform.contract import Defense, LocalStep
from backstop.platform.training.client_rules import (
    Round,
    Rules,
    Sheet,
    StepKind,
    attacking_steps,
    plain_steps,
    standard_normal,
)
from backstop.platform.training.federation import Federation
from backstop.platform.training.keeping import Keeping
from backstop.platform.training.local_steps import steps_alone
from backstop.platform.training.stage_errors import located

GradientRule = Callable[[Tensor, Tensor], Tensor]  # (gradient (d,), delta (d,)) → gradient
StepRule = Callable[[LocalStep], Tensor]  # → delta (d,)


def train_loop(
    here: Round,
    clients: Sequence[int],
    sheet: Sheet,
) -> None:
    """Train the clients one by one."""
    replica, keeping = here.federation.replica, here.federation.keeping
    for client in clients:
        begun = here.begun_by(client)
        with located(here.round_index, client):
            rules = Rules(begun, client)
            loss = _train_client(begun, client, rules)
        vectors = (replica.params, replica.buffers)
        sheet.write(client, vectors, (begun.params, begun.buffers), loss)
        if keeping is None:
            continue
        if keeping.carry:
            if client not in here.attackers:
                with located(here.round_index, client):
                    row, carried = keeping.carry.finish(rules.memory, sheet.row(client).clone())
                sheet.row(client).copy_(row)
                sheet.keep(client, carried)
        elif keeping.private:
            sheet.keep(client, keeping.taken(vectors))
            sheet.withhold(client, keeping.private)
        elif client not in here.attackers:  # one that attacks has no use for a model of its own
            with located(here.round_index, client):
                _train_personal(here, keeping, client)
            sheet.keep(client, keeping.taken(vectors))


def _train_client(
    here: Round,
    client: int,
    rules: Rules,
) -> Tensor:
    """Leave one client's parameters and buffers in the replica; its mean loss."""
    federation = here.federation
    attacking = client in here.attackers
    kind = attacking_steps(federation, here.state) if attacking else plain_steps(federation)
    batches = here.plan(client).batches
    federation.replica.load(here.params, here.buffers)
    draws = here.dropout(client)
    rule, follow = _gradient_rule(here, rules), _step_rule(here, rules)
    keeping, stored = federation.keeping, kind.objective is None
    if keeping and keeping.carry and not attacking:
        federation.replica.params += keeping.carry.begin(rules.memory)
    if attacking or keeping is None or keeping.private is None or keeping.epochs is None:
        steps = rules.steps(federation, batches, stored=stored)
        return descend(federation, steps, here.params, kind, draws, rule, follow)
    own, alone = keeping.private[0], steps_alone(federation, batches)
    steps = rules.steps(federation, batches[:alone], stored=stored)
    first = (*draws, "alone")
    descend(federation, steps, here.params, _holding(kind, ~own), first, rule, follow)
    middle = federation.replica.params.clone()
    steps = rules.steps(federation, batches[alone:], stored=stored)
    return descend(federation, steps, middle, _holding(kind, own), draws, rule, follow)


def _holding(kind: StepKind, where: Tensor) -> StepKind:
    """Steps that leave some coordinates (d,) as they are."""
    return kind._replace(constrain=lambda delta, _: delta.masked_fill(where, 0.0))


def _train_personal(
    here: Round,
    keeping: Keeping,
    client: int,
) -> None:
    """Leave in the replica the model of its own that a client trains beside the one it sends, on
    the same batches.
    """
    federation, personal = here.federation, keeping.personal
    assert personal is not None
    draws = here.draws("personal", client)
    noise = partial(standard_normal, here.params, draws)
    own = keeping.used((here.params, here.buffers), here.own.get(client))
    federation.replica.load(*own)
    plain = Rules(here._replace(federation=federation._replace(defense=Defense())), client)
    descend(
        federation,
        plain.steps(federation, here.plan(client).batches, stored=True),
        start=here.params,
        kind=plain_steps(federation),
        dropout=(*here.dropout(client), "personal"),
        rule=lambda grad, delta: personal(grad, delta, noise),
    )


def _gradient_rule(here: Round, rules: Rules) -> GradientRule | None:
    """What the defense makes of the gradients of an honest client."""
    local, noise = here.federation.defense.local, rules.noise
    rule = local.gradient if local else None
    if rule is None or noise is None:
        return None
    return lambda grad, delta: rule(grad, delta, noise)


def _step_rule(here: Round, rules: Rules) -> StepRule | None:
    """What the defense makes of the local steps of an honest client, who remembers them."""
    local = here.federation.defense.local
    change = local.step if local else None
    if change is None or rules.noise is None:
        return None

    def follow(step: LocalStep) -> Tensor:
        delta, rules.memory = change(rules.memory, step)
        return delta

    return follow


def descend(
    federation: Federation,
    batches: Iterable[tuple[Tensor, Tensor]],
    start: Tensor,
    kind: StepKind,
    dropout: tuple[str | int, ...],
    rule: GradientRule | None = None,
    follow: StepRule | None = None,
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
        before = None if follow is None else replica.params - start
        memory = kind.optimizer.step(replica.params, replica.grad, memory, kind.pace)
        if follow is not None and before is not None:
            moved = replica.params - start
            step = LocalStep(len(losses), replica.grad.clone(), before, moved)
            replica.params.copy_(start + follow(step))
        if kind.constrain is not None:
            held = kind.constrain(replica.params - start, len(losses))
            replica.params.copy_(start + held)
    weight = torch.tensor(counts, device=start.device)
    return (torch.stack(losses) * weight).sum() / weight.sum()
