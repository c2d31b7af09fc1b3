"""All clients of a block at once: parameters (k, d), batches (k, b, …), dead samples masked. The
gradients are autograd's under vmap or, where the model is nothing but linear layers, by hand.

On a CPU the block shrinks as its clients end: each computes for as long as it has batches. On a GPU
it keeps its width, up to which dead clients are masked, and one shape means one set of kernels.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from operator import neg
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from backstop.platform import seeds
from backstop.platform.optimizers import first_rows
from backstop.platform.training import dense, dense_descent
from backstop.platform.training.client_rules import (
    Round,
    Rules,
    Sheet,
    StepKind,
    attacking_steps,
    plain_steps,
)
from backstop.platform.training.federation import Federation
from backstop.platform.training.local_steps import LocalSteps, steps_differ, width
from backstop.platform.training.lock_free import TURN, given_up
from backstop.platform.training.network import split, to_unit_interval
from backstop.platform.training.stage_errors import located

TINY = 1e-12  # a weight that is less than any

Forward = Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]
# (params (k, d), batch, keys of dropout (k,)) → losses (k,), their gradients (k, d)
LossesAndGradients = Callable[[Tensor, "_Batch", Tensor | None], tuple[Tensor, Tensor]]


def train_block(
    here: Round,
    clients: Sequence[int],
    sheet: Sheet,
) -> None:
    """Train the clients together."""
    kind = _kind(here, clients)
    plain = _plain(here.federation, kind)
    with TURN if plain else nullcontext():
        plans = {client: here.plan(client) for client in clients}
        # batches of about one size are neighbors by that, and one product of several clients
        longest = sorted(clients, key=lambda client: plans[client].extent, reverse=True)
        block = _Block(here, longest, plans, kind)
        params, losses = block.train(plain)
    sheet.write_rows(longest, params, here.params, losses)


def _kind(here: Round, clients: Sequence[int]) -> StepKind:
    """What the local steps of all of them are like."""
    attacking = any(client in here.attackers for client in clients)
    if attacking and steps_differ(here.federation):
        return attacking_steps(here.federation, here.state)
    return plain_steps(here.federation)


def _plain(federation: Federation, kind: StepKind) -> bool:
    """Whether local steps are nothing but SGD with gradients by hand."""
    local = federation.defense.local
    ruled = local is not None and local.gradient is not None
    by_hand = federation.net.dense and kind.optimizer.rates
    return bool(by_hand) and not ruled and kind.constrain is None


class _Block:
    """The k clients of a block, those with the most steps first; on a GPU dead ones after them."""

    def __init__(
        self,
        here: Round,
        clients: Sequence[int],
        plans: Mapping[int, LocalSteps],
        kind: StepKind,
    ) -> None:
        self.here = here
        self.clients = clients
        self.plans = [plans[client] for client in clients]
        self.federation = here.federation
        self.start = here.params
        self.shrinks = self.start.device.type == "cpu"
        self.width = len(clients) if self.shrinks else width(self.federation)
        self.rules = [Rules(here, client) for client in clients]
        self.kind = kind
        # (k, 1): whether a client follows the defense's rules
        protected = self._padded([rules.noise is not None for rules in self.rules])
        self.protected = torch.tensor(protected, device=self.start.device).bool()[:, None]

    def train(self, plain: bool) -> tuple[Tensor, Tensor]:
        """Take all local steps, in one of the two ways below: parameters (k, d), losses (k,)."""
        start = self._widen(self.start)
        # each row begins at a multiple of LINE values
        moved = start.new_empty(self.width, dense.filled(len(start)))[:, : len(start)]
        total = start.new_zeros(self.width)
        take_steps = self.descend if plain else self.take_steps
        take_steps(start, moved, total)
        seen = [plan.order.shape[0] for plan in self.plans]
        return self._narrow(moved), total / total.new_tensor(self._padded(seen)).clamp_min(1)

    def descend(
        self,
        start: Tensor,
        moved: Tensor,
        total: Tensor,
    ) -> None:
        """Take plain steps, many in a call; the losses of all samples are added to ``total`` (k,).
        Other threads have their turn meanwhile.
        """
        layers, rates = self.federation.net.dense, self.kind.optimizer.rates
        assert layers is not None
        assert rates is not None
        moving = dense_descent.Moving(moved, start, layers.places)
        velocity, step = None, 0
        for steps in self._feed().together(dense_descent.STEPS_IN_A_CALL):
            x = self.federation.net.normalize(steps.x).flatten(3)
            weight = self._sample_weights(steps.y, steps.weight)
            factors = []
            for live in map(len, steps.sizes):
                factors.append(layers.factors(x.shape[2], self._keys(step, live)))
                step += 1
            samples = dense_descent.ManySteps(x, steps.y, weight, steps.counts)
            groups = list(map(dense.neighbors, steps.sizes))
            with given_up(TURN):
                velocity = dense_descent.take_all_steps(
                    samples,
                    groups,
                    factors,
                    moving,
                    velocity,
                    (*rates, self.kind.pace),
                    total,
                )
            moving = moving._replace(start=None)

    def take_steps(
        self,
        start: Tensor,
        moved: Tensor,
        total: Tensor,
    ) -> None:
        """Take local steps one after another, whatever they are like."""
        moved.copy_(start)
        kind = self.kind
        gradients = self._gradients(moved)
        memory = kind.optimizer.start(moved)
        for step, batch in enumerate(self._feed()):
            live = len(batch.counts)
            memory = first_rows(memory, live)
            params = moved[:live]
            losses, grad = gradients(params, batch, self._keys(step, live))
            total[:live] += losses * batch.counts
            # (k, 1): a client without a batch stays where it is
            alive = (batch.counts > 0).float().unsqueeze(1)
            with torch.no_grad():
                grad = self._protect(grad, params, batch.counts)
                memory = kind.optimizer.step(params, grad, memory, kind.pace * alive)
                if kind.constrain is not None:
                    held = self.start + kind.constrain(self._narrow(params) - self.start, step + 1)
                    params.copy_(torch.where(alive > 0, self._widen(held), params))

    def _widen(self, vectors: Tensor) -> Tensor:
        """Vectors as the gradients have them."""
        layers = self.federation.net.dense
        return vectors if layers is None else layers.widen(vectors)

    def _narrow(self, wide: Tensor) -> Tensor:
        """The way back."""
        layers = self.federation.net.dense
        return wide if layers is None else layers.narrow(wide)

    def _gradients(self, params: Tensor) -> LossesAndGradients:
        """How losses and gradients are had."""
        if known := self.federation.net.dense:
            return partial(self._by_hand, dense.Gradients(known, params))
        return partial(self._by_autograd, _forward(self.federation))

    def _by_hand(
        self,
        gradients: dense.Gradients,
        params: Tensor,
        batch: _Batch,
        keys: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        del params  # the gradients know them
        x = self.federation.net.normalize(batch.x).flatten(2)
        samples = dense.Batch(x, batch.y, self._sample_weights(batch.y, batch.weight))
        return gradients(samples, batch.sizes, keys)

    def _by_autograd(
        self,
        forward: Forward,
        params: Tensor,
        batch: _Batch,
        keys: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        net = self.federation.net
        params = params.detach().requires_grad_()
        drawn = {} if keys is None else dict.fromkeys(net.keys, keys)
        logits = forward(params, net.normalize(batch.x), drawn)
        losses = self._losses(batch, logits)
        loss = sum(self._objectives(params, batch, logits), losses.sum())
        (grad,) = torch.autograd.grad(loss, params)
        return losses.detach(), grad

    def _feed(self) -> _Feed:
        return _Feed(self.federation, self.plans, self.rules, self._live())

    def _live(self) -> list[int]:
        """How many rows each step computes: on a CPU those that have a batch."""
        steps = range(len(self.plans[0].sizes))
        if not self.shrinks:
            return [self.width for _ in steps]
        counts = [len(plan.sizes) for plan in self.plans]  # falling
        return [bisect_left(counts, -step, key=neg) for step in steps]

    def _losses(self, batch: _Batch, logits: Tensor) -> Tensor:
        """The mean loss (k,) of each client's samples."""
        each = cross_entropy(logits.flatten(0, 1), batch.y.flatten(), reduction="none")
        weight = self._sample_weights(batch.y, batch.weight)
        weighted = each.view_as(weight) * weight
        return weighted.sum(1) / weight.sum(1).clamp_min(TINY)

    def _sample_weights(self, y: Tensor, weight: Tensor) -> Tensor:
        """The weight (…, k, b) of each sample in the loss: its class's, 0 where there is none."""
        class_weights = self.federation.net.class_weights
        return weight if class_weights is None else weight * class_weights[y]

    def _objectives(
        self,
        params: Tensor,
        batch: _Batch,
        logits: Tensor,
    ) -> Iterator[Tensor]:
        """What the attack adds to the loss, for one client after another."""
        objective = self.kind.objective
        if objective is None:
            return
        for row, count in enumerate(batch.sizes):
            if not count:
                continue
            own = row, slice(count)
            with located(self.here.round_index, self.clients[row]):
                delta = params[row] - self.start
                term = objective(delta, batch.x[own], batch.y[own], logits[own])
            yield term

    def _protect(
        self,
        grad: Tensor,
        params: Tensor,
        counts: Tensor,
    ) -> Tensor:
        """The gradients as the defense lets honest clients follow them."""
        local = self.federation.defense.local
        if local is None or local.gradient is None:
            return grad
        moved = self._narrow(params)
        noise = partial(self._noise, moved, counts)
        own = self._narrow(grad).clone()  # which the defense may overwrite
        changed = local.gradient(own, moved - self.start, noise)
        return torch.where(self.protected[: len(grad)], self._widen(changed), grad)

    def _noise(self, params: Tensor, counts: Tensor) -> Tensor:
        """Standard normal draws (k, d): each client's from its own generator, and only while it has
        batches.
        """
        noise = torch.zeros_like(params)
        for row, (rules, count) in enumerate(zip(self.rules, counts.tolist(), strict=False)):
            if rules.noise and count:
                noise[row] = rules.noise()
        return noise

    def _keys(self, step: int, live: int) -> Tensor | None:
        """The key (k,) of dropout of every live client, the same as in the loop; None where the
        model has no dropout.
        """
        federation = self.federation
        if not federation.net.keys:
            return None
        named = federation.spec.seed, "dropout", federation.draw_round(self.here.round_index)
        keys = [seeds.stream(*named, client, step) for client in self.clients]
        return torch.tensor(self._padded(keys)[:live], device=federation.device)

    def _padded(self, values: list[int]) -> list[int]:
        """0 for the dead clients."""
        return values + [0] * (self.width - len(values))


def _forward(federation: Federation) -> Forward:
    """(params (k, d), x (k, b, …), keys of dropout) → logits (k, b, classes), in training mode."""
    module, net = federation.replica.module, federation.net

    def of_one(
        vector: Tensor,
        x: Tensor,
        keys: dict[str, Tensor],
    ) -> Tensor:
        logits: Tensor = functional_call(module, split(vector, net.layout) | keys, (x,))
        return logits

    of_all: Forward = torch.func.vmap(of_one)

    def forward(
        params: Tensor,
        x: Tensor,
        keys: dict[str, Tensor],
    ) -> Tensor:
        with net.arithmetic():
            logits = of_all(params, x, keys)
        return logits.to(params.dtype)

    return forward


class _Steps(NamedTuple):
    """Some local steps one after another, of the k clients who are live in the first of them."""

    x: Tensor  # (s, k, b, …)
    y: Tensor  # (s, k, b)
    weight: Tensor  # (s, k, b): 0 where there is no sample, else 1
    counts: Tensor  # (s, k): samples of each client
    sizes: list[list[int]]  # of each step those of the clients who are live in it


class _Batch(NamedTuple):
    """A local step of the k live clients of a block."""

    x: Tensor  # (k, b, …)
    y: Tensor  # (k, b)
    weight: Tensor  # (k, b): 0 where there is no sample, else 1
    counts: Tensor  # (k,): samples of each client
    sizes: list[int]  # the same


class _Feed:
    """The local steps of a block as batches of those who are live."""

    def __init__(
        self,
        federation: Federation,
        plans: Sequence[LocalSteps],
        rules: Sequence[Rules],
        live: Sequence[int],
    ) -> None:
        """``live`` says of each step how many rows it computes."""
        batch = federation.spec.batch
        samples = dense.filled(batch) if federation.net.dense else batch
        self.sizes = _sizes((len(live), max(live, default=0)), plans)
        index, weight = _filled(self.sizes, samples, plans)
        self.data = federation.data.train
        self.live = live
        device = self.data.y.device
        self.index = index.to(device)
        self.weight = weight.to(device)
        self.counts = self.weight.sum(2)
        self.changed = [
            (row, client_rules.apply, plan.sizes)
            for row, (client_rules, plan) in enumerate(zip(rules, plans, strict=True))
            if client_rules.change
        ]

    def __iter__(self) -> Iterator[_Batch]:
        """Step after step."""
        for steps in self.together(1):
            x, y, weight, counts = steps.x[0], steps.y[0], steps.weight[0], steps.counts[0]
            yield _Batch(x, y, weight, counts, steps.sizes[0])

    def together(self, many: int) -> Iterator[_Steps]:
        """So many steps at a time."""
        for first in range(0, len(self.live), many):
            some = slice(first, first + many), slice(self.live[first])
            index = self.index[some]
            x = to_unit_interval(_taken(self.data.x, index))
            y = _taken(self.data.y, index)
            for step in range(first, first + len(index)):
                self._change(step, x[step - first], y[step - first])
            live = self.live[some[0]]
            sizes = [
                step_sizes[:own].tolist()
                for step_sizes, own in zip(self.sizes[some[0]], live, strict=True)
            ]
            yield _Steps(x, y, self.weight[some], self.counts[some], sizes)

    def _change(self, step: int, x: Tensor, y: Tensor) -> None:
        """Let attack and defense change the batches (k, b, …) of a step."""
        for row, change, sizes in self.changed:
            if step < len(sizes):
                own = row, slice(sizes[step])
                x[own], y[own] = change(x[own], y[own])


def _sizes(shape: tuple[int, int], plans: Sequence[LocalSteps]) -> npt.NDArray[np.int64]:
    """How many samples (steps, k) each client has in each step."""
    sizes = np.zeros(shape, dtype=np.int64)
    for row, plan in enumerate(plans):
        sizes[: len(plan.sizes), row] = plan.sizes
    return sizes


def _filled(
    sizes: npt.NDArray[np.int64],
    samples: int,
    plans: Sequence[LocalSteps],
) -> tuple[Tensor, Tensor]:
    """The samples (steps, k, b) of all steps, and their weights: 0 where there is none."""
    present = np.arange(samples) < sizes[..., None]
    index = np.zeros(present.shape, dtype=np.int64)
    in_order = torch.cat([plan.order for plan in plans]).numpy()
    index.swapaxes(0, 1)[present.swapaxes(0, 1)] = in_order  # client by client
    return torch.from_numpy(index), torch.from_numpy(present.astype(np.float32))


def _taken(values: Tensor, index: Tensor) -> Tensor:
    """The samples (s, k, b, …) of an index (s, k, b)."""
    return values.index_select(0, index.flatten()).view(*index.shape, *values.shape[1:])
