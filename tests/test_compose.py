"""Attack stages as one attack."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.platform.contract import (
    Attack,
    AttackView,
    BrokenStage,
    Defense,
    ServerView,
    TestSet,
    Training,
    Updates,
    merge,
    select,
    stateless,
)
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator
from backstop.platform.training.attack_chain import attack_chain
from backstop.platform.training.defense_chain import chain
from tests.views import attack_view, server_view


def spy(seen: list[bool], name: str) -> Attack:
    """A stage that notes whether it sees honest rows and leaves its name in its state and its mark
    on everything.
    """

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
    stages = attack_chain([spy(first, "first"), spy(second, "second")], ["own", "all"])
    view = replace(attack_view("table"), honest=torch.ones(7, 24))
    assert stages.init is not None and stages.plan is not None and stages.craft is not None
    state = stages.plan(stages.init(view), view)
    assert state == (["first", "first"], ["second", "second"])
    assert stages.craft(state, torch.ones(1, 1), view).item() == (1 * 2 + 2) * 2 + 2
    assert first == [False] * 3 and second == [True] * 3


def test_stages_apply_from_left_to_right() -> None:
    def stage(number: float) -> Attack:
        return Attack(
            poison=lambda state, x, y, index, generator: (x * 2 + number, y + 1),
            constrain=lambda state, delta, step: delta * step + number,
            objective=lambda state, delta, x, y, logits: number * delta.sum(),
        )

    attack = attack_chain([stage(1.0), Attack(), stage(5.0)], ["own"] * 3)
    one = torch.ones(1, requires_grad=True)
    assert (
        attack.init is None
        and attack.plan is None
        and attack.craft is None
        and attack.trigger is None
    )
    assert (
        attack.poison is not None and attack.constrain is not None and attack.objective is not None
    )
    x, y = attack.poison(
        None, torch.ones(1), torch.zeros(1, dtype=torch.int64), 0, generator(0, "tests")
    )
    assert x.item() == (1 * 2 + 1) * 2 + 5 and y.item() == 2
    assert attack.constrain(None, torch.ones(1), 2).item() == 11
    loss = attack.objective(None, one, x, y, x)
    loss.backward()
    assert loss.item() == 6 and one.grad is not None and one.grad.item() == 6


def test_later_training_settings_count_where_they_are_given() -> None:
    stages = [
        Attack(training=Training(epochs=6, lr=0.05)),
        Attack(),
        Attack(training=Training(lr=0.1)),
    ]
    assert attack_chain(stages, ["own"] * 3).training == Training(epochs=6, lr=0.1)
    assert attack_chain(stages[1:2], ["own"]).training is None


def test_success_is_defined_by_one_stage_on_its_own_state() -> None:
    judge = Attack(
        init=lambda view: 3,
        trigger=lambda state, x, draws: x + state,
        goal=lambda state, y: y * 0 + state,
    )
    attack = attack_chain([Attack(), judge], ["own", "own"])
    assert (
        attack.init is not None
        and attack.trigger is not None
        and attack.goal is not None
        and attack.test_set is None
    )
    states = attack.init(attack_view("table"))
    assert (
        attack.trigger(states, torch.zeros(1), generator(0, "tests")).item() == 3
        and attack.goal(states, torch.zeros(1)).item() == 3
    )

    def test_set(state: Any, view: AttackView) -> TestSet:
        return TestSet(view.data.x, view.data.y, view.data.y)

    other = Attack(test_set=test_set)
    tested = attack_chain([other, Attack()], ["all", "own"])
    assert tested.test_set is not None and len(tested.test_set(None, attack_view("table")).x) == 40
    with pytest.raises(BadInput, match="stages 1 and 3 both define the trigger"):
        attack_chain([judge, Attack(), other], ["own"] * 3)
    with pytest.raises(ValueError, match="2 stages, but 1"):
        attack_chain([judge, Attack()], ["own"])


# -- defense stages


def drop(*clients: int) -> Defense:
    """Rejects some clients and notes in its state whom it saw."""

    def apply(updates: Updates, state: list[int], view: ServerView) -> tuple[Updates, list[int]]:
        return select(updates, ~torch.isin(updates.client, torch.tensor(clients))), [
            *state,
            *updates.client.tolist(),
        ]

    return Defense(init=lambda view: [], apply=apply)


def test_a_defense_stage_sees_only_rows_that_are_left() -> None:
    updates = Updates(torch.tensor([[1.0], [2.0], [90.0], [4.0]]), torch.ones(4), torch.arange(4))
    middle = stateless(lambda given: merge(given, given.rows.median(0).values))
    defense = chain(drop(2), drop(0), middle)
    after, states = defense.apply(updates, defense.init(server_view(1)), server_view(1))
    assert states == ([0, 1, 2, 3], [0, 1, 3], None)
    assert (after.rows.tolist(), after.weight.tolist()) == ([[2.0]], [2.0])


def test_a_chain_that_rejects_everybody_ends_there() -> None:
    updates = Updates(torch.ones(2, 1), torch.ones(2), torch.arange(2))
    defense = chain(drop(0, 1), drop(1))
    after, states = defense.apply(updates, defense.init(server_view(1)), server_view(1))
    assert len(after.rows) == 0 and states == ([0, 1], [])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1.0])
def test_a_weight_that_is_not_finite_or_negative_names_its_stage(value: float) -> None:
    updates = Updates(torch.ones(3, 2), torch.ones(3), torch.arange(3))
    broken = stateless(lambda given: given._replace(weight=torch.tensor([1.0, value])))
    defense, view = chain(drop(1), broken, names=["krum", "rfa"]), server_view(2, 6)
    with pytest.raises(
        BrokenStage,
        match=r"^defense rfa: round 7: 1 of 2 weights are NaN, infinite or negative; .*$",
    ):
        defense.apply(updates, defense.init(view), view)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_names_its_stage(value: float) -> None:
    updates = Updates(torch.ones(3, 2), torch.ones(3), torch.arange(3))
    broken = stateless(lambda given: given._replace(rows=given.rows * torch.tensor([1.0, value])))
    defense, view = chain(drop(1), broken), server_view(2)
    with pytest.raises(
        BrokenStage, match=r"^defense stage 2: round 1: 2 of 2 rows hold a NaN or an infinity; "
    ):
        defense.apply(updates, defense.init(view), view)


def test_a_repair_that_is_not_finite_names_its_stage() -> None:
    defense, view = (
        chain(drop(), Defense(finish=lambda _, view: view.params / 0.0), names=["krum", "nad"]),
        server_view(2),
    )
    assert defense.finish is not None
    with pytest.raises(
        BrokenStage, match=r"^defense nad: the repaired model holds a NaN or an infinity"
    ):
        defense.finish((None, None), view)
    # the model was lost before: no stage is to blame
    lost = replace(view, params=torch.full((2,), float("nan")))
    assert defense.finish((None, None), lost).isnan().all()


def paired(updates: Updates) -> Updates:
    """Rows 0 and 1, 2 and 3 … merged, as bucketing does."""
    count = len(updates.rows) // 2
    rows, weight = (
        updates.rows[: 2 * count].view(count, 2, -1).mean(1),
        updates.weight[: 2 * count].view(count, 2).sum(1),
    )
    return Updates(rows, weight, torch.full((count,), -1))


def test_clients_count_as_they_did_before_rows_were_merged() -> None:
    updates, view = (
        Updates(torch.arange(6.0)[:, None], torch.arange(1.0, 7.0), torch.arange(6) * 2),
        server_view(1),
    )
    first = stateless(lambda given: select(given, torch.arange(1)))
    halved = stateless(lambda given: given._replace(weight=given.weight / 2))
    for stages, wanted in (
        ((), {0: 1, 2: 2, 4: 3, 6: 4, 8: 5, 10: 6}),
        ((drop(2), halved), {0: 0.5, 4: 1.5, 6: 2, 8: 2.5, 10: 3}),
        # the mixtures' clients, which are not known one by one any more
        ((drop(2, 10), stateless(paired)), {0: 1, 4: 3, 6: 4, 8: 5}),
        ((drop(2, 10), stateless(paired), first, halved), {0: 1, 4: 3, 6: 4, 8: 5}),
        ((first, stateless(lambda given: merge(given, given.rows[0]))), {0: 1}),
        (
            (
                stateless(paired),
                stateless(lambda given: select(given, torch.zeros(len(given.rows)).bool())),
            ),
            {},
        ),
    ):
        defense = chain(*stages)
        assert defense.follow is not None
        _, _, (client, weight) = defense.follow(updates, defense.init(view), view)
        counted = {
            one: share for one, share in zip(client.tolist(), weight.tolist(), strict=True) if share
        }
        assert counted == wanted


def test_an_empty_chain_of_defenses_is_no_defense() -> None:
    assert chain().local is None and chain().finish is None
    updates = Updates(torch.ones(2, 1), torch.ones(2), torch.arange(2))
    assert chain().apply(updates, (), server_view(1)) == (updates, ())


def test_a_stage_can_try_how_those_before_it_poison_a_batch() -> None:
    """With their states of the round, in plan and craft; the first sees them as dealt."""
    tried: list[tuple[float, int]] = []

    def trying(stage: float) -> Attack:
        def note(view: AttackView) -> None:
            x, y = view.poison(torch.ones(1), torch.zeros(1, dtype=torch.int64), 2)
            tried.append((x.item(), int(y.item())))

        def plan(state: float | None, view: AttackView) -> float:
            note(view)
            return stage if state is None else state + 1

        def craft(state: float, rows: Tensor, view: AttackView) -> Tensor:
            note(view)
            return rows

        return Attack(
            plan=plan,
            poison=lambda state, x, y, index, draws: (x * 10 + state, y + index),
            craft=craft,
        )

    attack = attack_chain([trying(3.0), trying(5.0), trying(7.0)], ["own"] * 3)
    assert attack.plan is not None and attack.craft is not None
    states = attack.plan(None, attack_view("table"))
    assert tried == [(1.0, 0), (13.0, 2), (135.0, 4)]
    attack.craft(attack.plan(states, attack_view("table")), torch.ones(3, 24), attack_view("table"))
    assert tried[3:] == [(1.0, 0), (14.0, 2), (146.0, 4)] * 2


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "it returned NoneType"),
        (Updates(torch.zeros(2, 2), torch.ones(2), torch.arange(2)), r"rows of shape \(2, 2\)"),
        (Updates(torch.zeros(2, 3).double(), torch.ones(2), torch.arange(2)), "torch.float64"),
        (Updates(torch.zeros(2, 3), torch.ones(5), torch.arange(2)), "2 rows with 5 weights"),
    ],
)
def test_a_stage_that_returns_something_else_is_named(returned: object, words: str) -> None:
    wrong = stateless(lambda _: returned)  # type: ignore[arg-type, return-value]
    given, view = Updates(torch.zeros(2, 3), torch.ones(2), torch.arange(2)), server_view(3)
    defense = chain(wrong, names=["wrong"])
    with pytest.raises(BrokenStage, match=f"defense wrong: .*{words}"):
        defense.apply(given, defense.init(view), view)


def test_a_type_checker_holds_the_functions_of_a_stage_to_one_state() -> None:
    """mypy reports an ignored error that is none, so what is ignored here is an error for it."""

    def init(view: ServerView) -> list[int]:
        return []

    def apply(updates: Updates, state: int, view: ServerView) -> tuple[Updates, int]:
        return updates, state

    def start(view: AttackView) -> Tensor:
        return view.params

    def craft(state: int, rows: Tensor, view: AttackView) -> Tensor:
        return rows * state

    def defense() -> Defense[list[int]]:
        return Defense(init=init, apply=apply)  # type: ignore[arg-type]

    def plan(state: int, view: AttackView) -> int:
        return state

    def planned() -> Attack[Tensor]:
        return Attack(init=start, plan=plan)  # type: ignore[arg-type]

    def attack() -> Attack[Tensor]:
        return Attack(init=start, craft=craft)  # type: ignore[arg-type]

    assert defense().init(server_view(1)) == []
    assert attack().craft is not None and planned().plan is not None
