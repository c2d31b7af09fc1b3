"""Local training of one block of clients: global parameters in, one update row per client out.

Two engines compute the same thing to float tolerance. The loop trains one client after another;
vmap trains the block at once. Every batch order and every draw of an attack comes from a generator
named by (seed, what, round, client), so a row does not depend on who else is in the block, nor on
where and when the block is trained:

* in the loop, clients do not meet at all;
* under vmap all tensors of a block have the same shape whatever its members (``spec.block``
  clients, at most a cohort, ``spec.batch`` samples, padded with weight 0), and with equal shapes a
  client's row is bit-equal whatever its block-mates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from backstop.platform import seeds
from backstop.platform.contract import Attack, ClientView, Memory, Samples, Step, TrainView
from backstop.platform.params import BadInput
from backstop.platform.training import network
from backstop.platform.training.federation import Federation
from backstop.platform.training.stage_errors import located

Batches = list[Tensor]  # for each local step the indices of its samples
TINY = 1e-12  # a weight that is less than any


class Trained(NamedTuple):
    """What a block sends back, in the order of ``client``."""

    client: Tensor  # (k,) int64
    rows: Tensor  # (k, d) local minus global parameters
    buffers: Tensor  # (k, e) local minus global floating-point buffers
    loss: Tensor  # (k,) mean training loss over the local steps, weighted by samples


def batches(
    federation: Federation,
    round_index: int,
    client: int,
    attacking: bool,
) -> Batches:
    """The local steps of a client in a round: reshuffled every epoch and cut by :func:`cut`."""
    shard = federation.shards[client]
    order = federation.draws("batches", round_index, client)
    return [
        piece
        for _ in range(_epochs(federation, attacking))
        for piece in cut(federation, shard[torch.randperm(len(shard), generator=order)])
    ]


def cut(federation: Federation, epoch: Tensor) -> Batches:
    """The samples of an epoch as its local steps; the last one may be smaller. Where the model
    cannot
    be trained on one sample, a single last one is part of the step before, so that none is left
    out.

    Raises BadInput where there is no step before it.
    """
    pieces = [piece for piece in epoch.split(federation.spec.batch) if len(piece)]
    if not federation.net.pairs or not pieces or len(pieces[-1]) > 1:
        return pieces
    if len(pieces) == 1:
        raise BadInput(federation.lonely("training on one sample", "give it more"))
    return [*pieces[:-2], torch.cat(pieces[-2:])]


def _epochs(federation: Federation, attacking: bool) -> int:
    training = federation.attack.training if attacking else None
    return (
        training.epochs
        if training and training.epochs is not None
        else federation.spec.local_epochs
    )


def blocks(
    federation: Federation,
    round_index: int,
    cohort: Sequence[int],
    attacked: bool,
) -> list[list[int]]:
    """The cohort of a round cut into units of work, the longest first.

    The loop engine takes single clients. The vmap engine takes blocks of clients with about equally
    many steps, so that little is padded; clients whose local steps differ in kind (constrained,
    with an extra loss) get blocks of their own.
    """
    attackers = set(federation.attackers(round_index).tolist()) if attacked else set()
    steps = {
        client: _epochs(federation, client in attackers)
        * -(-len(federation.shards[client]) // federation.spec.batch)
        for client in cohort
    }
    longest = sorted(cohort, key=lambda client: (-steps[client], client))
    if not federation.net.vectorized:
        return [[client] for client in longest]
    apart = attackers if _differs(federation) else set()
    groups = [[c for c in longest if c in apart], [c for c in longest if c not in apart]]
    sizes = [1 if federation.attack.train else width(federation), width(federation)]
    cut = [
        group[start : start + size]
        for group, size in zip(groups, sizes, strict=True)
        for start in range(0, len(group), size)
    ]
    return sorted(cut, key=lambda block: (-steps[block[0]], block[0]))


def width(federation: Federation) -> int:
    """Clients in a block: a function of the spec alone, never of how many there are to train."""
    return min(federation.spec.block, federation.spec.per_round)


def _differs(federation: Federation) -> bool:
    attack = federation.attack
    own_rate = attack.pace or (attack.training and attack.training.lr is not None)
    return bool(attack.train or attack.constrain or attack.objective or own_rate)


def _pace(
    federation: Federation,
    state: Any,
    attacking: bool,
) -> float:
    """The factor on the learning rate of clients that attack, or do not."""
    pace = federation.attack.pace
    return pace(state) if attacking and pace else 1.0


def train(
    federation: Federation,
    round_index: int,
    clients: Sequence[int],
    params: Tensor,
    buffers: Tensor,
    state: Any,
    attacked: bool,
) -> Trained:
    """Train a block from the global vectors (d,) and (e,). ``state`` is the attack's, ``attacked``
    whether it is active.
    """
    attackers = _attackers(federation, round_index) if attacked else {}
    here = _Round(federation, round_index, params, buffers, state, attackers)
    engine = _train_block if federation.net.vectorized else _train_loop
    if federation.attack.train is None:
        return engine(here, clients)
    others = [client for client in clients if client not in attackers]
    parts = [_train_own(here, client) for client in clients if client in attackers]
    if others:
        parts.append(engine(here, others))
    return _in_order(parts, clients)


def unpoisoned(
    federation: Federation,
    round_index: int,
    clients: Sequence[int],
    params: Tensor,
    buffers: Tensor,
) -> Tensor:
    """The updates (k, d) of malicious clients that attack in a round, had they no attack: trained
    on the same batches, and without the defense's rules for honest clients, as their poisoned ones.
    """
    plain = federation._replace(attack=Attack())
    units = blocks(plain, round_index, clients, attacked=True)
    parts = [
        train(plain, round_index, unit, params, buffers, None, attacked=True) for unit in units
    ]
    return _in_order(parts, clients).rows


def _in_order(parts: Sequence[Trained], clients: Sequence[int]) -> Trained:
    """The parts as one, in the order of ``clients``."""
    trained = Trained(*(torch.cat(column) for column in zip(*parts, strict=True)))
    order = [trained.client.tolist().index(client) for client in clients]
    return Trained(*(column[order] for column in trained))


def _attackers(federation: Federation, round_index: int) -> dict[int, int]:
    """Client → index among the malicious ones, of those that may attack in a round."""
    active = set(federation.attackers(round_index).tolist())
    everyone = enumerate(federation.malicious.tolist())
    return {client: index for index, client in everyone if client in active}


class _Round(NamedTuple):
    """What all clients of a round are trained from."""

    federation: Federation
    round_index: int  # from 0
    params: Tensor  # (d,) global
    buffers: Tensor  # (e,) global
    state: Any  # the attack's
    attackers: dict[int, int]  # client → index among the malicious ones, of those that attack

    def batches(self, client: int) -> Batches:
        """The local steps of a client."""
        return batches(self.federation, self.round_index, client, client in self.attackers)

    def draws(self, what: str, client: int) -> torch.Generator:
        """The generator of one thing that a client does."""
        return self.federation.draws(what, self.round_index, client)


class _Rules:
    """What happens to the batches and gradients of one client: the attack's poison, or the
    defense's rules for honest clients.
    """

    def __init__(self, here: _Round, client: int) -> None:
        attack, local = here.federation.attack, here.federation.defense.local
        self.batch: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
        self.noise: Callable[[], Tensor] | None = None
        self.round, self.client = here.round_index, client
        if client in here.attackers:
            if poison := attack.poison:
                index, draws = here.attackers[client], here.draws("poison", client)
                self.batch = lambda x, y: poison(here.state, x, y, index, draws)
        elif local:
            own, params = here.draws("local", client), here.params
            if change := local.batch:
                memory = None
                if local.prepare:
                    with located(here.round_index, client):
                        memory = local.prepare(_client_view(here, client, own))
                self.batch = lambda x, y: change(memory, x, y, own)
            self.noise = lambda: torch.randn(len(params), generator=own).to(params.device)

    def apply(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of the client as it trains on it."""
        if self.batch is None:
            return x, y
        with located(self.round, self.client):
            return self.batch(x, y)


def _client_view(
    here: _Round,
    client: int,
    draws: torch.Generator,
) -> ClientView:
    federation, data = here.federation, here.federation.data.train
    index = federation.shards[client].to(data.y.device)
    shared = federation.round_view(here.round_index, here.params, here.buffers, draws)
    own = Samples(network.to_unit_interval(data.x[index]), data.y[index])
    return ClientView(**vars(shared), data=own)


def _steps(
    federation: Federation,
    plan: Batches,
    rules: _Rules,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one client as (x, y), as its rules make them."""
    data = federation.data.train
    for batch in plan:
        index = batch.to(data.y.device)
        x, y = network.to_unit_interval(data.x[index]), data.y[index]
        yield rules.apply(x, y)


def _train_own(here: _Round, client: int) -> Trained:
    """A malicious client whose attack brings its own local training. Buffers stay as they are."""
    with located(here.round_index, client):
        return _trained_by_attack(here, client)


def _trained_by_attack(here: _Round, client: int) -> Trained:
    federation, _, params, buffers, state, attackers = here
    attack, net, train = federation.attack, federation.net, federation.attack.train
    assert train is not None
    plan = here.batches(client)
    clean = _steps(federation, plan, _Rules(here._replace(attackers={}), client))
    poisoned = _steps(federation, plan, _Rules(here, client))
    pairs = zip(clean, poisoned, strict=True)
    every = tuple(Step(Samples(*one), Samples(*other)) for one, other in pairs)
    draws = here.draws("malicious training", client)
    shared = federation.round_view(here.round_index, params, buffers, draws)
    model = shared.model

    def minimise(
        loss: Callable[[Tensor, Step], Tensor],
        start: Tensor | None = None,
        steps: Sequence[Step] | None = None,
        rates: Sequence[float] | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        steps = every if steps is None else steps
        rates = [1.0] * len(steps) if rates is None else rates
        vector = (params if start is None else start).detach().clone()
        optimizer = federation.optimizer(attack.training.lr if attack.training else None)
        memory = memory or Memory()
        pace = _pace(federation, state, attacking=True)
        if memory.value is None:
            memory.value = optimizer.start(vector)
        for count, (step, rate) in enumerate(zip(steps, rates, strict=True), 1):
            leaf = vector.clone().requires_grad_()
            value = loss(leaf, step)
            if attack.objective:
                value = value + attack.objective(
                    state, leaf - params, *step.poisoned, model(leaf, step.poisoned.x)
                )
            if not value.requires_grad:  # the loss of an encoder that the model does not have
                continue
            (grad,) = torch.autograd.grad(value, leaf)
            memory.value = optimizer.step(vector, grad, memory.value, pace * rate)
            if attack.constrain:
                vector = params + attack.constrain(state, vector - params, count)
        return vector

    view = TrainView(
        **vars(shared),
        index=attackers[client],
        steps=every,
        loss=lambda logits, y: cross_entropy(logits, y, net.class_weights),
        minimise=minimise,
    )
    row = train(state, view).detach()
    with torch.no_grad():
        losses = [
            view.loss(model(params + row, step.poisoned.x), step.poisoned.y) for step in every
        ]
    return Trained(
        torch.tensor([client]),
        row[None],
        torch.zeros_like(buffers)[None],
        torch.stack(losses).mean()[None],
    )


def _train_loop(here: _Round, clients: Sequence[int]) -> Trained:
    """One client after another."""
    federation, start, replica = here.federation, here.params, here.federation.replica
    draw_round = federation.draw_round(here.round_index)
    trained = []
    for client in clients:
        with located(here.round_index, client):
            rules = _Rules(here, client)
            steps = _steps(federation, here.batches(client), rules)
            replica.load(start, here.buffers)
            loss = _train_one(
                federation,
                replica,
                steps,
                start,
                here.state,
                client in here.attackers,
                rules.noise,
                ("dropout", draw_round, client),
            )
        trained.append((replica.params - start, replica.buffers - here.buffers, loss))
    rows, changes, losses = (torch.stack(column) for column in zip(*trained, strict=True))
    return Trained(torch.tensor(list(clients)), rows, changes, losses)


def _train_one(
    federation: Federation,
    replica: network.Replica,
    steps: Iterator[tuple[Tensor, Tensor]],
    start: Tensor,
    state: Any,
    attacking: bool,
    noise: Callable[[], Tensor] | None = None,
    path: tuple[str | int, ...] = (),
) -> Tensor:
    """Local steps of one client on its replica, in place; the mean loss. ``path`` names the draws
    of dropout.
    """
    attack, local = federation.attack, federation.defense.local
    rule = local.gradient if local and noise and not attacking else None
    objective, constrain = (attack.objective, attack.constrain) if attacking else (None, None)
    rate = attack.training.lr if attacking and attack.training else None
    optimizer = federation.optimizer(rate)
    memory, pace = optimizer.start(replica.params), _pace(federation, state, attacking)
    losses: list[Tensor] = []
    counts: list[float] = []
    for x, y in steps:
        replica.grad.zero_()
        if federation.net.keys:
            replica.rekey(seeds.stream(federation.spec.seed, *path, len(losses)))
        logits = replica(x)
        loss = cross_entropy(logits, y, federation.net.class_weights)
        losses.append(loss.detach())
        counts.append(float(len(y)))
        if objective is None:
            loss.backward()
        else:
            delta = (replica.params - start).requires_grad_()
            (loss + objective(state, delta, x, y, logits)).backward()
            if delta.grad is not None:
                replica.grad += delta.grad
        if rule is not None and noise is not None:
            replica.grad.copy_(rule(replica.grad, replica.params - start, noise))
        memory = optimizer.step(replica.params, replica.grad, memory, pace)
        if constrain is not None:
            replica.params.copy_(start + constrain(state, replica.params - start, len(losses)))
    weight = torch.tensor(counts, device=start.device)
    return (torch.stack(losses) * weight).sum() / weight.sum()


def _train_block(here: _Round, clients: Sequence[int]) -> Trained:
    """All clients of a block at once: parameters (k, d), batches (k, b, …), dead samples and
    clients masked.
    """
    federation, start, state = here.federation, here.params, here.state
    attack, net, training = federation.attack, federation.net, federation.replica.module
    special = any(client in here.attackers for client in clients) and _differs(federation)
    rules = [_Rules(here, client) for client in clients]
    plans = [here.batches(client) for client in clients]
    feed = _Feed(federation, plans, rules)
    local = federation.defense.local
    rule = local.gradient if local else None
    follows = torch.tensor(
        [rule is not None and one.noise is not None for one in rules]
        + [False] * (width(federation) - len(rules))
    )
    params = start.expand(width(federation), -1).clone().requires_grad_()  # (k, d)
    optimizer = federation.optimizer(attack.training.lr if special and attack.training else None)
    memory, pace = optimizer.start(params.detach()), _pace(federation, state, special)
    forward = torch.func.vmap(
        lambda vector, x, keys: functional_call(
            training, network.split(vector, net.layout) | keys, (x,)
        )
    )
    total, seen = start.new_zeros(len(params)), start.new_zeros(len(params))
    for step_number, (x, y, weight) in enumerate(feed, 1):
        counts = weight.sum(1)  # (k,)
        keys = _keys(federation, here.round_index, clients, step_number - 1)
        logits = forward(params, net.normalize(x), keys)
        each = cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view_as(weight)
        matter = weight if net.class_weights is None else weight * net.class_weights[y]
        losses = (each * matter).sum(1) / matter.sum(1).clamp_min(TINY)
        total += losses.detach() * counts
        seen += counts
        loss = losses.sum()
        if special and attack.objective is not None:
            for row, count in enumerate(counts.int().tolist()):
                if not count:
                    continue
                samples = x[row, :count], y[row, :count], logits[row, :count]
                with located(here.round_index, clients[row]):
                    loss = loss + attack.objective(state, params[row] - start, *samples)
        (grad,) = torch.autograd.grad(loss, params)
        # (k, 1): a client without a batch stays where it is
        alive = (counts > 0).float().unsqueeze(1)
        with torch.no_grad():
            if rule is not None:
                changed = rule(grad, params - start, _noise(rules, counts, params))
                grad = torch.where(follows.to(start.device)[:, None], changed, grad)
            memory = optimizer.step(params, grad, memory, pace * alive)
            if special and attack.constrain is not None:
                held = start + attack.constrain(state, params - start, step_number)
                params.copy_(torch.where(alive > 0, held, params))
    rows = (params.detach() - start)[: len(clients)]
    return Trained(
        torch.tensor(list(clients)),
        rows,
        rows.new_zeros(len(clients), 0),
        (total / seen.clamp_min(1))[: len(clients)],
    )


def _keys(
    federation: Federation,
    round_index: int,
    clients: Sequence[int],
    step: int,
) -> dict[str, Tensor]:
    """For each dropout layer the key (k,) of every client of a block, the same as in the loop."""
    names, seed = federation.net.keys, federation.spec.seed
    if not names:
        return {}
    draw_round = federation.draw_round(round_index)
    keys = [seeds.stream(seed, "dropout", draw_round, client, step) for client in clients]
    padded = keys + [0] * (width(federation) - len(keys))
    return dict.fromkeys(names, torch.tensor(padded, device=federation.device))


def _noise(
    rules: Sequence[_Rules],
    counts: Tensor,
    params: Tensor,
) -> Callable[[], Tensor]:
    """Standard normal draws (k, d): each client's from its own generator, and only while it has
    batches.
    """

    def draw() -> Tensor:
        noise = torch.zeros_like(params)
        for row, (one, count) in enumerate(zip(rules, counts.tolist(), strict=False)):
            if one.noise and count:
                noise[row] = one.noise()
        return noise

    return draw


class _Feed:
    """The local steps of a block in fixed shapes: x (k, b, …), y (k, b), weight (k, b), 0 where
    there is no sample.
    """

    def __init__(
        self,
        federation: Federation,
        plans: Sequence[Batches],
        rules: Sequence[_Rules],
    ) -> None:
        shape = (max(map(len, plans)), width(federation), federation.spec.batch)
        index, weight = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
        for row, plan in enumerate(plans):
            for step, piece in enumerate(plan):
                index[step, row, : len(piece)], weight[step, row, : len(piece)] = piece, 1
        self.data = federation.data.train
        self.index, self.weight = index.to(self.data.y.device), weight.to(self.data.y.device)
        self.changed = [
            (row, rule.apply, plan)
            for row, (rule, plan) in enumerate(zip(rules, plans, strict=True))
            if rule.batch
        ]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Step after step."""
        for step, (index, weight) in enumerate(zip(self.index, self.weight, strict=True)):
            x, y = network.to_unit_interval(self.data.x[index]), self.data.y[index]
            for row, change, plan in self.changed:
                if step < len(plan):
                    count = len(plan[step])
                    x[row, :count], y[row, :count] = change(x[row, :count], y[row, :count])
            yield x, y, weight


def train_samples(
    federation: Federation,
    round_index: int,
    params: Tensor,
    buffers: Tensor,
    samples: Samples,
) -> Tensor:
    """The update (d,) that an honest client with these samples would send in a round: the same
    steps, epochs and optimizer.
    """
    spec, order = (
        federation.spec,
        seeds.generator(federation.spec.seed, "root batches", round_index),
    )
    steps = (
        (samples.x[piece], samples.y[piece])
        for _ in range(spec.local_epochs)
        for piece in cut(
            federation, torch.randperm(len(samples.y), generator=order).to(samples.y.device)
        )
    )
    federation.replica.load(params, buffers)
    _train_one(
        federation,
        federation.replica,
        steps,
        params,
        None,
        attacking=False,
        path=("root dropout", round_index),
    )
    return federation.replica.params - params
