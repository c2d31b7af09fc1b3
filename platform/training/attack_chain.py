"""Attack stages as one attack, from left to right: a trigger, a constraint and a scaling combine as
the adversary likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial, reduce
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import Asked, Attack, AttackView, TestSet, Training, TrainView
from backstop.platform.params import BadInput
from backstop.platform.training.stage_errors import name_errors


def attack_chain(
    stages: Sequence[Attack],
    knows: Sequence[str],
    names: Sequence[str] = (),
) -> Attack:
    """One attack that applies the stages from left to right. Its state is the tuple of theirs.
    ``names`` are for its errors: what a stage raises is a :class:`BrokenStage` that names it.

    ``knows`` holds what each stage declares: only a view for one that knows "all" has honest rows,
    only one for "defense" the defense in use. Rows, batches, deltas and answers pass through the
    stages in turn, objectives are added, and of two settings of the training the later one counts.
    At most one stage may define what success is (trigger, goal or test_set), and at most one the
    local training; raises BadInput otherwise.
    """
    trigger_stage = find_trigger_stage(stages)
    unnamed = range(len(names) + 1, len(stages) + 1)
    called = (*names, *(f"stage {position}" for position in unnamed))
    labels = [f"attack {name}" for name in called]
    named = map(name_errors, labels, stages)
    chain = _Chain(tuple(named), tuple(knows), trigger_stage)
    if len(chain.knows) != len(chain.stages):
        raise ValueError(f"{len(chain.stages)} stages, but {len(chain.knows)} say what they know")
    trainer = _only([bool(stage.train) for stage in stages], "the local training")
    return Attack(
        init=chain.init if chain.has("init") else None,
        plan=chain.plan if chain.has("plan") else None,
        poison=chain.poison if chain.has("poison") else None,
        constrain=chain.constrain if chain.has("constrain") else None,
        objective=chain.objective if chain.has("objective") else None,
        training=reduce(_later, (stage.training for stage in stages), None),
        pace=chain.pace if chain.has("pace") else None,
        train=partial(chain.train, trainer) if chain.has("train") else None,
        craft=chain.craft if chain.has("craft") else None,
        craft_buffers=chain.craft_buffers if chain.has("craft_buffers") else None,
        remember=chain.remember if chain.has("remember") else None,
        testify=chain.testify if chain.has("testify") else None,
        trigger=partial(chain.trigger, trigger_stage) if chain.has("trigger") else None,
        goal=partial(chain.goal, trigger_stage) if chain.has("goal") else None,
        test_set=partial(chain.test_set, trigger_stage) if chain.has("test_set") else None,
    )


def in_training(stage: Attack) -> bool:
    """Whether the clients' local training asks the stage, and needs its state."""
    return any((stage.poison, stage.constrain, stage.objective, stage.pace, stage.train))


def find_trigger_stage(stages: Sequence[Attack]) -> int:
    """The index of the stage that defines what success is, 0 where none does. Raises BadInput
    where two do.
    """
    defining = [bool(stage.trigger or stage.goal or stage.test_set) for stage in stages]
    return _only(defining, "the trigger")


def _only(which: Sequence[bool], what: str) -> int:
    """The index of the stage that does something, 0 where none does; BadInput where two do."""
    doing = [index for index, does in enumerate(which) if does]
    if len(doing) > 1:
        both = " and ".join(str(index + 1) for index in doing)
        raise BadInput(f"attack stages {both} both define {what}; keep one of them")
    return doing[0] if doing else 0


def _later(first: Training | None, second: Training | None) -> Training | None:
    if first is None or second is None:
        return second or first
    return Training(
        epochs=first.epochs if second.epochs is None else second.epochs,
        lr=first.lr if second.lr is None else second.lr,
    )


class _Chain(NamedTuple):
    stages: tuple[Attack, ...]
    knows: tuple[str, ...]
    trigger_stage: int

    def has(self, function: str) -> bool:
        return any(getattr(stage, function) is not None for stage in self.stages)

    def seen(
        self,
        position: int,
        view: AttackView,
        what: str,
        before: Sequence[Any] = (),
    ) -> AttackView:
        """The view of one stage in one of its functions. Its draws are its own: those of the stage
        that makes the trigger do not depend on what stands before or after it, so its dormant twin
        alone makes the same trigger.

        ``before`` holds the states of the stages before it, by which they poison batches.
        """
        knows = self.knows[position]
        stage = "trigger" if position == self.trigger_stage else str(position)
        seed = view.generator.initial_seed()
        draws = seeds.generator(seed, stage, what, "poison")
        return replace(
            view,
            honest=view.honest if knows == "all" else None,
            defend=view.defend if knows == "defense" else None,
            generator=seeds.generator(seed, stage, what),
            poison=partial(self.poisoned_by, before, draws),
        )

    def poisoned_by(
        self,
        before: Sequence[Any],
        draws: torch.Generator,
        x: Tensor,
        y: Tensor,
        index: int,
    ) -> tuple[Tensor, Tensor]:
        """A batch of one malicious client as the first stages, of these states, poison it."""
        for stage, state in zip(self.stages, before, strict=False):
            if stage.poison:
                x, y = stage.poison(state, x, y, index, draws)
        return x, y

    def split(self, states: Any) -> tuple[Any, ...]:
        """A state for each stage; the chain's own is None while no stage has set one."""
        return (None,) * len(self.stages) if states is None else tuple(states)

    def pairs(self, states: Any) -> Iterator[tuple[Attack, Any]]:
        """Each stage with its state."""
        return zip(self.stages, self.split(states), strict=True)

    def init(self, view: AttackView) -> tuple[Any, ...]:
        return tuple(
            stage.init(self.seen(index, view, "init")) if stage.init else None
            for index, stage in enumerate(self.stages)
        )

    def plan(self, states: Any, view: AttackView) -> tuple[Any, ...]:
        planned: list[Any] = []
        for index, (stage, state) in enumerate(self.pairs(states)):
            seen = self.seen(index, view, "plan", tuple(planned))
            planned.append(stage.plan(state, seen) if stage.plan else state)
        return tuple(planned)

    def poison(
        self,
        states: Any,
        x: Tensor,
        y: Tensor,
        index: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        for stage, state in self.pairs(states):
            if stage.poison:
                x, y = stage.poison(state, x, y, index, generator)
        return x, y

    def constrain(
        self,
        states: Any,
        delta: Tensor,
        step: int,
    ) -> Tensor:
        for stage, state in self.pairs(states):
            if stage.constrain:
                delta = stage.constrain(state, delta, step)
        return delta

    def objective(
        self,
        states: Any,
        delta: Tensor,
        x: Tensor,
        y: Tensor,
        logits: Tensor,
    ) -> Tensor:
        terms = [
            stage.objective(state, delta, x, y, logits)
            for stage, state in self.pairs(states)
            if stage.objective
        ]
        return torch.stack(terms).sum()

    def pace(self, states: Any) -> float:
        return prod(stage.pace(state) for stage, state in self.pairs(states) if stage.pace)

    def craft(
        self,
        states: Any,
        rows: Tensor,
        view: AttackView,
    ) -> Tensor:
        every = self.split(states)
        for index, (stage, state) in enumerate(self.pairs(states)):
            if stage.craft:
                seen = self.seen(index, view, "craft", every[:index])
                rows = stage.craft(state, rows, seen)
        return rows

    def craft_buffers(
        self,
        states: Any,
        changes: Tensor,
        view: AttackView,
    ) -> Tensor:
        for index, (stage, state) in enumerate(self.pairs(states)):
            if stage.craft_buffers:
                seen = self.seen(index, view, "craft buffers")
                changes = stage.craft_buffers(state, changes, seen)
        return changes

    def remember(
        self,
        states: Any,
        rows: Tensor,
        view: AttackView,
    ) -> tuple[Any, ...]:
        return tuple(
            stage.remember(state, rows, self.seen(index, view, "remember"))
            if stage.remember
            else state
            for index, (stage, state) in enumerate(self.pairs(states))
        )

    def testify(
        self,
        states: Any,
        asked: Asked,
        view: AttackView,
    ) -> Tensor:
        for index, (stage, state) in enumerate(self.pairs(states)):
            if stage.testify:
                seen = self.seen(index, view, "testify")
                asked = asked._replace(scores=stage.testify(state, asked, seen))
        return asked.scores

    def train(
        self,
        index: int,
        states: Any,
        view: TrainView,
    ) -> Tensor:
        function = self.stages[index].train
        assert function is not None
        return function(self.split(states)[index], view)

    def trigger(
        self,
        index: int,
        states: Any,
        x: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        function = self.stages[index].trigger
        assert function is not None
        return function(self.split(states)[index], x, generator)

    def goal(
        self,
        index: int,
        states: Any,
        y: Tensor,
    ) -> Tensor:
        function = self.stages[index].goal
        assert function is not None
        return function(self.split(states)[index], y)

    def test_set(
        self,
        index: int,
        states: Any,
        view: AttackView,
    ) -> TestSet:
        function = self.stages[index].test_set
        assert function is not None
        return function(self.split(states)[index], self.seen(index, view, "test"))
