"""Several adversaries in one federation as one attack: each has a part of the malicious clients, a
chain of stages, a state and a view of its own, and knows nothing of the others.

Malicious client number i belongs to adversary i mod k of k, so that the parts are as equal as they
can be, and is number i // k of its own. Decision 27 says why the clients are dealt and not told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import (
    Attack,
    AttackView,
    Memory,
    Samples,
    Step,
    TestSet,
    TrainView,
)
from backstop.platform.params import BadInput
from backstop.platform.training.evaluate import stamped

Loss = Callable[[Tensor, Step], Tensor]


def adversaries(chains: Sequence[Attack]) -> Attack:
    """One attack in which each chain has its own malicious clients. Its state is the tuple of
    theirs; its test set has those of all, one after another.

    Where a chain changes the local steps (a constraint, a term of the loss, a rate, training of its
    own), all malicious clients are trained one by one by :class:`TrainOwn`, as a chain with
    training of its own always is. Raises BadInput for a chain that changes how many local steps a
    client takes, or what clients answer.
    """
    if any(chain.training for chain in chains):
        raise BadInput(
            "attack: of several adversaries none may set the malicious clients' epochs or learning"
            " rate, which are one for all of them; leave out the stage that does, such as overtrain"
        )
    if any(chain.testify for chain in chains):
        raise BadInput(
            "attack: of several adversaries none may say how malicious clients score models: all of"
            " them lie for all; leave out the stage that does, such as lying_validators"
        )
    several = _Adversaries(tuple(chains))
    own_steps = any(
        (chain.train or chain.constrain or chain.objective or chain.pace) for chain in chains
    )
    return Attack(
        init=several.init,
        plan=several.plan if several.has("plan") else None,
        poison=several.poison if several.has("poison") else None,
        train=several.train if own_steps else None,
        craft=several.craft if several.has("craft") else None,
        craft_buffers=several.craft_buffers if several.has("craft_buffers") else None,
        remember=several.remember if several.has("remember") else None,
        test_set=several.test_set,
    )


class _Adversaries(NamedTuple):
    chains: tuple[Attack, ...]

    def has(self, function: str) -> bool:
        return any(getattr(chain, function) is not None for chain in self.chains)

    def of(self, index: int) -> tuple[Attack, int, int]:
        """Whose a malicious client is: the chain, the adversary's number, the client's own."""
        number = index % len(self.chains)
        return self.chains[number], number, index // len(self.chains)

    def split(self, states: Any) -> tuple[Any, ...]:
        return (None,) * len(self.chains) if states is None else tuple(states)

    def seen(self, number: int, view: AttackView) -> AttackView:
        """What one adversary sees: its own clients alone, with draws of its own."""
        many = len(self.chains)
        theirs = range(number, view.clients, many)
        has = view if view.among is None else view.among(theirs)
        here = view.members % many == number
        sizes = view.sizes[number::many]
        seed = view.generator.initial_seed()
        return replace(
            view,
            params=has.params,
            model=has.model,
            features=has.features,
            train=has.train,
            defend=has.defend,
            carried=has.carried,
            among=None,
            samples=lambda: _joined([view.own(i) for i in theirs], view),
            sizes=sizes,
            clients=len(sizes),
            members=view.members[here] // many,
            share=view.share * self.weight(number, view),
            unpoisoned=lambda: view.unpoisoned()[here],
            unpoisoned_buffers=lambda: view.unpoisoned_buffers()[here],
            generator=seeds.generator(seed, "adversary", number),
        )

    def weight(self, number: int, view: AttackView) -> float:
        """Of the samples of the malicious clients that are there, the part of an adversary's; of
        all of them outside a round. Fakes claim the same each.
        """
        there = view.members.tolist() or range(view.clients)
        sizes = view.sizes if any(view.sizes) else (1,) * view.clients
        held = sum(sizes[i] for i in there)
        own = sum(sizes[i] for i in there if i % len(self.chains) == number)
        return own / held if held else 0.0

    def init(self, view: AttackView) -> tuple[Any, ...]:
        return tuple(
            chain.init(self.seen(number, view)) if chain.init else None
            for number, chain in enumerate(self.chains)
        )

    def plan(self, states: Any, view: AttackView) -> tuple[Any, ...]:
        """The states of the round; that of an adversary without a client in it stays."""
        planned = []
        for number, (chain, state) in enumerate(zip(self.chains, self.split(states), strict=True)):
            seen = self.seen(number, view)
            present = chain.plan is not None and len(seen.members) > 0
            planned.append(chain.plan(state, seen) if chain.plan and present else state)
        return tuple(planned)

    def poison(
        self,
        states: Any,
        x: Tensor,
        y: Tensor,
        index: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        chain, number, own = self.of(index)
        if chain.poison is None:
            return x, y
        return chain.poison(self.split(states)[number], x, y, own, generator)

    def train(self, states: Any, view: TrainView) -> Tensor:
        chain, number, own = self.of(view.index)
        state = self.split(states)[number]
        steps = _Steps(chain, state, view)
        if chain.train:
            return chain.train(state, replace(view, index=own, minimise=steps.minimise))
        return steps.minimise(steps.usual) - view.params

    def craft(self, states: Any, rows: Tensor, view: AttackView) -> Tensor:
        return self.each(states, rows, view, lambda chain: chain.craft)

    def craft_buffers(self, states: Any, changes: Tensor, view: AttackView) -> Tensor:
        return self.each(states, changes, view, lambda chain: chain.craft_buffers)

    def each(
        self,
        states: Any,
        rows: Tensor,
        view: AttackView,
        function: Callable[[Attack], Any],
    ) -> Tensor:
        """The rows (m, d) with those of each adversary as it crafts them."""
        crafted = rows.clone()
        for number, (chain, state) in enumerate(zip(self.chains, self.split(states), strict=True)):
            here = view.members % len(self.chains) == number
            if function(chain) and here.any():
                where = here.to(rows.device)
                crafted[where] = function(chain)(state, rows[where], self.seen(number, view))
        return crafted

    def remember(self, states: Any, rows: Tensor, view: AttackView) -> tuple[Any, ...]:
        kept = []
        for number, (chain, state) in enumerate(zip(self.chains, self.split(states), strict=True)):
            here = view.members % len(self.chains) == number
            if chain.remember and here.any():
                own = rows[here.to(rows.device)]
                state = chain.remember(state, own, self.seen(number, view))  # noqa: PLW2901
            kept.append(state)
        return tuple(kept)

    def test_set(self, states: Any, view: AttackView) -> TestSet:
        """The test sets of all adversaries, ``group`` saying whose an input is."""
        made = [
            _test_set(chain, state, self.seen(number, view))
            for number, (chain, state) in enumerate(
                zip(self.chains, self.split(states), strict=True)
            )
        ]
        group = [torch.full_like(one.wanted, number) for number, one in enumerate(made)]
        return TestSet(
            torch.cat([one.x for one in made]),
            torch.cat([one.wanted for one in made]),
            torch.cat([one.truth for one in made]),
            paired=all(one.paired for one in made),
            group=torch.cat(group),
        )


def _joined(parts: Sequence[Samples], view: AttackView) -> Samples:
    """The samples of some clients, client after client."""
    if not parts:
        return Samples(view.data.x[:0], view.data.y[:0])
    return Samples(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))


def _test_set(chain: Attack, state: Any, view: AttackView) -> TestSet:
    """What one adversary's success is measured on."""
    if chain.test_set:
        return chain.test_set(state, view)
    assert view.test is not None
    assert chain.goal is not None
    x, y = view.test
    trigger = chain.trigger
    if trigger is not None:
        x = stamped(x, lambda piece: trigger(state, piece, view.generator))
    return TestSet(x, chain.goal(state, y), y, paired=trigger is not None)


class _Steps(NamedTuple):
    """Local steps under one adversary's constraint, term of the loss and rate."""

    chain: Attack
    state: Any
    view: TrainView

    def usual(self, params: Tensor, step: Step) -> Tensor:
        """The loss of a client without training of its own."""
        return self.view.loss(self.view.model(params, step.poisoned.x), step.poisoned.y)

    def minimise(
        self,
        loss: Loss,
        start: Tensor | None = None,
        steps: Sequence[Step] | None = None,
        rates: Sequence[float] | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """As :class:`~backstop.platform.contract.Minimize`."""
        chain, params = self.chain, self.view.params
        steps = self.view.steps if steps is None else steps
        rates = [1.0] * len(steps) if rates is None else rates
        pace = chain.pace(self.state) if chain.pace else 1.0
        memory = memory or Memory()
        loss = self.with_objective(loss)
        vector = params if start is None else start
        for count, (step, rate) in enumerate(zip(steps, rates, strict=True), 1):
            vector = self.view.minimise(loss, vector, [step], [rate * pace], memory)
            if chain.constrain:
                vector = params + chain.constrain(self.state, vector - params, count)
        return vector

    def with_objective(self, loss: Loss) -> Loss:
        """The loss with the chain's term."""
        objective = self.chain.objective
        if objective is None:
            return loss

        def total(params: Tensor, step: Step) -> Tensor:
            logits = self.view.model(params, step.poisoned.x)
            added = objective(self.state, params - self.view.params, *step.poisoned, logits)
            return loss(params, step) + added

        return total
