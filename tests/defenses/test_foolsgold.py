from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from backstop.defenses.foolsgold import foolsgold
from backstop.platform.contract import Defense, Slot, Updates
from backstop.platform.seeds import generator
from tests.references import foolsgold as twin
from tests.views import server_view


def run(defense: Defense, rounds: list[dict[int, torch.Tensor]]) -> tuple[dict[int, float], Any]:
    """The weights of the last round, where every client has one sample, and the state."""
    view = server_view(len(next(iter(rounds[0].values()))))
    state, weight = defense.init(view), {}
    for given in rounds:
        after, state = defense.apply(
            Updates(
                torch.stack(list(given.values())), torch.ones(len(given)), torch.tensor(list(given))
            ),
            state,
            view,
        )
        weight = dict(zip(given, after.weight.tolist(), strict=True))
    return weight, state


def draw(name: object, d: int = 12) -> torch.Tensor:
    return torch.randn(d, generator=generator(0, "tests", "foolsgold", str(name)))


@pytest.mark.parametrize("confidence", [0.3, 1.0, 4.0])
def test_agrees_with_the_reference_while_clients_take_turns(confidence: float) -> None:
    common, rounds = draw("common"), list[dict[int, torch.Tensor]]()
    for number in range(6):
        rounds.append(
            {i: draw((i, number)) + (i % 3) * 0.6 * common for i in range(12) if (i + number) % 4}
        )
        found, _ = run(foolsgold(features="all", confidence=confidence), rounds)
        wanted = twin.foolsgold(
            [{i: row.double().numpy() for i, row in given.items()} for given in rounds], confidence
        )
        assert found == pytest.approx(wanted, abs=1e-4)
        assert 0 < sum(found.values()) < len(found)


def test_sybils_lose_their_votes_to_clients_that_go_their_own_ways() -> None:
    goal = draw("goal", 400)
    rounds = [
        {i: draw((i, number), 400) + (2 * goal if i < 6 else 0) for i in range(10)}
        for number in range(5)
    ]
    weight, _ = run(foolsgold(features="all"), rounds)
    # six of ten are attackers
    assert [i for i, kept in weight.items() if kept > 0.5] == [6, 7, 8, 9]
    assert sum(weight[i] for i in range(6)) == 0


def test_history_tells_sybils_that_no_single_round_shows() -> None:
    goal, swing = draw("goal", 400), draw("swing", 400)
    halves = [
        {0: goal + 3 * swing, 1: goal - 3 * swing},
        {0: goal - 3 * swing, 1: goal + 3 * swing},
    ]
    rounds = [
        {**half, **{i: draw((i, number), 400) for i in range(2, 6)}}
        for number, half in enumerate(halves)
    ]
    assert run(foolsgold(features="all"), rounds[:1])[0][0] > 0.5
    assert run(foolsgold(features="all"), rounds)[0] == {
        0: 0.0,
        1: 0.0,
        2: 1.0,
        3: 1.0,
        4: 1.0,
        5: 1.0,
    }


def test_history_goes_by_client_and_not_by_row() -> None:
    one, other = draw("one", 400), draw("other", 400)
    rounds = [
        {1: one, 2: other, 3: draw(3, 400)},
        {0: draw(0, 400), 1: one, 2: other, 3: draw(3, 400)},
    ]
    _, state = run(foolsgold(features="all"), rounds)
    assert sorted(state) == [0, 1, 2, 3]
    torch.testing.assert_close(state[1], 2 * one)
    torch.testing.assert_close(state[2], 2 * other)


def test_pardon_by_hand() -> None:
    # cosines 0.6 between the first two and √0.12 of each with the third, whose α is 1 - 0.12 / 0.6
    # = 0.8; those of the others are 0.4
    third = torch.tensor([0.12**0.5, (0.12**0.5 - 0.6 * 0.12**0.5) / 0.8, 0.0])
    third[2] = (1 - third.square().sum()).sqrt()
    rows = {0: torch.tensor([1.0, 0.0, 0.0]), 1: torch.tensor([0.6, 0.8, 0.0]), 2: third}
    # without pardon 0.956
    assert run(foolsgold(features="all"), [rows])[0] == pytest.approx(
        {0: 0.5, 1: 0.5, 2: 1.0}, abs=1e-4
    )


def test_unlike_clients_are_not_taken_for_like_ones() -> None:
    rows = {
        0: torch.tensor([1.0, 0.0]),
        1: torch.tensor([-0.7, 0.7]),
        2: torch.tensor([-0.7, -0.7]),
        3: torch.tensor([-0.8, 0.6]),
    }
    weight, _ = run(foolsgold(features="all"), [rows])
    assert weight[0] == weight[2] == 1.0


@pytest.mark.parametrize("n", [1, 2, 5])
def test_if_nobody_stands_out_all_stay(n: int) -> None:
    row = draw("row")
    assert set(
        run(foolsgold(), [dict.fromkeys(range(n), row), {i: row * (i + 1) for i in range(n)}])[
            0
        ].values()
    ) == {1.0}
    assert set(run(foolsgold(), [dict.fromkeys(range(n), row * 0)])[0].values()) == {1.0}


def test_only_the_output_layer_is_looked_at_and_remembered() -> None:
    view = replace(server_view(12), head=(Slot("w", 4, (2, 2)), Slot("b", 10, (2,))))
    rows = torch.stack([draw(i) for i in range(4)])
    same = rows.clone()
    same[:, [4, 5, 6, 7, 10, 11]] = rows[0, [4, 5, 6, 7, 10, 11]]
    same[3] = rows[3]
    after, state = foolsgold().apply(Updates(same, torch.ones(4), torch.arange(4)), {}, view)
    assert after.weight.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert torch.equal(state[3], rows[3, [4, 5, 6, 7, 10, 11]]) and torch.equal(after.rows, same)
    everywhere, _ = foolsgold(features="all").apply(
        Updates(same, torch.ones(4), torch.arange(4)), {}, view
    )
    assert everywhere.weight.sum() > 1


@pytest.mark.parametrize("size", [1e30, 3e38])
def test_a_history_beyond_the_largest_number_stays_finite(size: float) -> None:
    rounds = [{0: torch.full((12,), size), 1: draw(1), 2: torch.full((12,), size)}] * 3
    weight, state = run(foolsgold(), rounds)
    assert weight == {0: 0.0, 1: 1.0, 2: 0.0}
    assert all(past.isfinite().all() for past in state.values())


def test_trust_multiplies_the_sample_counts() -> None:
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    after, _ = foolsgold(features="all").apply(
        Updates(rows, torch.tensor([5.0, 6.0, 7.0]), torch.arange(3)), {}, server_view(2)
    )
    assert after.weight.tolist() == [0.0, 0.0, 7.0]
