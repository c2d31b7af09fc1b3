"""Attack stages as one attack, from left to right: a trigger, a constraint and a scaling combine as the adversary likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView, TestSet, Training
from backstop.platform.params import BadInput


def attack_chain(stages: Sequence[Attack], knows_all: Sequence[bool]) -> Attack:
    """One attack that applies the stages from left to right. Its state is the tuple of theirs.

    ``knows_all`` says for each stage whether it may see the honest rows; a view for any other has none. Rows, batches and deltas
    pass through the stages in turn, objectives are added, and of two settings of the training the later one counts.
    At most one stage may define what success is (trigger, goal or test_set); raises BadInput otherwise.
    """
    chain = _Chain(tuple(stages), tuple(knows_all))
    if len(chain.knows_all) != len(chain.stages):
        raise ValueError(f"{len(chain.stages)} stages, but {len(chain.knows_all)} say what they know")
    seers = [number for number, stage in enumerate(stages) if stage.trigger or stage.goal or stage.test_set]
    if len(seers) > 1:
        raise BadInput(f"attack stages {' and '.join(str(number + 1) for number in seers)} both define the trigger; keep one of them")
    seer = seers[0] if seers else 0
    return Attack(
        init=chain.init if chain.has("init") else None,
        plan=chain.plan if chain.has("plan") else None,
        poison=chain.poison if chain.has("poison") else None,
        constrain=chain.constrain if chain.has("constrain") else None,
        objective=chain.objective if chain.has("objective") else None,
        training=reduce(_later, (stage.training for stage in stages), None),
        craft=chain.craft if chain.has("craft") else None,
        trigger=partial(chain.trigger, seer) if chain.has("trigger") else None,
        goal=partial(chain.goal, seer) if chain.has("goal") else None,
        test_set=partial(chain.test_set, seer) if chain.has("test_set") else None,
    )


def _later(first: Training | None, second: Training | None) -> Training | None:
    if first is None or second is None:
        return second or first
    return Training(
        epochs=first.epochs if second.epochs is None else second.epochs,
        lr=first.lr if second.lr is None else second.lr,
    )


class _Chain(NamedTuple):
    stages: tuple[Attack, ...]
    knows_all: tuple[bool, ...]

    def has(self, function: str) -> bool:
        return any(getattr(stage, function) is not None for stage in self.stages)

    def seen(self, number: int, view: AttackView) -> AttackView:
        return view if self.knows_all[number] else replace(view, honest=None)

    def split(self, states: Any) -> tuple[Any, ...]:
        """A state for each stage; the chain's own is None while no stage has set one."""
        return (None,) * len(self.stages) if states is None else tuple(states)

    def init(self, view: AttackView) -> tuple[Any, ...]:
        return tuple(stage.init(self.seen(number, view)) if stage.init else None for number, stage in enumerate(self.stages))

    def plan(self, states: Any, view: AttackView) -> tuple[Any, ...]:
        pairs = enumerate(zip(self.stages, self.split(states), strict=True))
        return tuple(stage.plan(state, self.seen(number, view)) if stage.plan else state for number, (stage, state) in pairs)

    def poison(self, states: Any, x: Tensor, y: Tensor, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        for stage, state in zip(self.stages, self.split(states), strict=True):
            if stage.poison:
                x, y = stage.poison(state, x, y, index, generator)
        return x, y

    def constrain(self, states: Any, delta: Tensor) -> Tensor:
        for stage, state in zip(self.stages, self.split(states), strict=True):
            if stage.constrain:
                delta = stage.constrain(state, delta)
        return delta

    def objective(self, states: Any, delta: Tensor, x: Tensor, y: Tensor, logits: Tensor) -> Tensor:
        terms = [
            stage.objective(state, delta, x, y, logits)
            for stage, state in zip(self.stages, self.split(states), strict=True)
            if stage.objective
        ]
        return torch.stack(terms).sum()

    def craft(self, states: Any, rows: Tensor, view: AttackView) -> Tensor:
        for number, (stage, state) in enumerate(zip(self.stages, self.split(states), strict=True)):
            if stage.craft:
                rows = stage.craft(state, rows, self.seen(number, view))
        return rows

    def trigger(self, number: int, states: Any, x: Tensor) -> Tensor:
        function = self.stages[number].trigger
        assert function is not None
        return function(self.split(states)[number], x)

    def goal(self, number: int, states: Any, y: Tensor) -> Tensor:
        function = self.stages[number].goal
        assert function is not None
        return function(self.split(states)[number], y)

    def test_set(self, number: int, states: Any, view: AttackView) -> TestSet:
        function = self.stages[number].test_set
        assert function is not None
        return function(self.split(states)[number], self.seen(number, view))
