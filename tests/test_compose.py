"""Attack stages as one attack."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.platform.compose import attack_chain
from backstop.platform.contract import Attack, AttackView, TestSet, Training
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator
from tests.views import attack_view


def spy(seen: list[bool], name: str) -> Attack:
    """A stage that notes whether it sees honest rows and leaves its name in its state and its mark on everything."""

    def init(view: AttackView) -> list[str]:
        seen.append(view.honest is not None)
        return [name]

    def plan(state: list[str], view: AttackView) -> list[str]:
        seen.append(view.honest is not None)
        return [*state, name]

    def craft(state: list[str], rows: Tensor, view: AttackView) -> Tensor:
        seen.append(view.honest is not None)
        return rows * 2 + len(state)

    return Attack(init=init, plan=plan, craft=craft)


def test_an_empty_chain_is_no_attack() -> None:
    assert attack_chain([], []) == Attack()


def test_only_stages_that_know_all_see_honest_rows() -> None:
    first, second = list[bool](), list[bool]()
    chain = attack_chain([spy(first, "first"), spy(second, "second")], [False, True])
    view = replace(attack_view("table"), honest=torch.ones(7, 24))
    assert chain.init is not None and chain.plan is not None and chain.craft is not None
    state = chain.plan(chain.init(view), view)
    assert state == (["first", "first"], ["second", "second"])
    assert chain.craft(state, torch.ones(1, 1), view).item() == (1 * 2 + 2) * 2 + 2
    assert first == [False] * 3 and second == [True] * 3


def test_stages_apply_from_left_to_right() -> None:
    def stage(number: float) -> Attack:
        return Attack(
            poison=lambda state, x, y, index, generator: (x * 2 + number, y + 1),
            constrain=lambda state, delta: delta * 2 + number,
            objective=lambda state, delta, x, y, logits: number * delta.sum(),
        )

    chain = attack_chain([stage(1.0), Attack(), stage(5.0)], [False] * 3)
    one = torch.ones(1, requires_grad=True)
    assert chain.init is None and chain.plan is None and chain.craft is None and chain.trigger is None
    assert chain.poison is not None and chain.constrain is not None and chain.objective is not None
    x, y = chain.poison(None, torch.ones(1), torch.zeros(1, dtype=torch.int64), 0, generator(0, "tests"))
    assert x.item() == (1 * 2 + 1) * 2 + 5 and y.item() == 2
    assert chain.constrain(None, torch.ones(1)).item() == 11
    loss = chain.objective(None, one, x, y, x)
    loss.backward()
    assert loss.item() == 6 and one.grad is not None and one.grad.item() == 6


def test_later_training_settings_count_where_they_are_given() -> None:
    stages = [Attack(training=Training(epochs=6, lr=0.05)), Attack(), Attack(training=Training(lr=0.1))]
    assert attack_chain(stages, [False] * 3).training == Training(epochs=6, lr=0.1)
    assert attack_chain(stages[1:2], [False]).training is None


def test_success_is_defined_by_one_stage_on_its_own_state() -> None:
    judge = Attack(init=lambda view: 3, trigger=lambda state, x: x + state, goal=lambda state, y: y * 0 + state)
    chain = attack_chain([Attack(), judge], [False, False])
    assert chain.init is not None and chain.trigger is not None and chain.goal is not None and chain.test_set is None
    states = chain.init(attack_view("table"))
    assert chain.trigger(states, torch.zeros(1)).item() == 3 and chain.goal(states, torch.zeros(1)).item() == 3

    def test_set(state: Any, view: AttackView) -> TestSet:
        return TestSet(view.data.x, view.data.y, view.data.y)

    other = Attack(test_set=test_set)
    tested = attack_chain([other, Attack()], [True, False])
    assert tested.test_set is not None and len(tested.test_set(None, attack_view("table")).x) == 40
    with pytest.raises(BadInput, match="stages 1 and 3 both define the trigger"):
        attack_chain([judge, Attack(), other], [False] * 3)
    with pytest.raises(ValueError, match="2 stages, but 1"):
        attack_chain([judge, Attack()], [False])
