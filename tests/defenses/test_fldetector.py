from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from backstop.defenses import fldetector as module
from backstop.defenses.fldetector import fldetector
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator
from tests.references import fldetector as twin
from tests.views import server_view

Client = Callable[[int, int, torch.Tensor], torch.Tensor]  # (client, round, global model) → update
D = 30
HESSIAN = torch.diag(torch.linspace(0.1, 0.6, D))


def draw(*name: object) -> torch.Tensor:
    """A vector of its own for each name."""
    return torch.randn(D, generator=generator(0, "tests", "fldetector", *map(str, name)))


def honest(client: int, number: int, model: torch.Tensor) -> torch.Tensor:
    """A step towards the client's own optimum, with a little noise; the optima are far apart."""
    return HESSIAN @ (draw("optimum", client) * 3 - model) + 0.01 * draw("noise", client, number)


def jumping(client: int, number: int, model: torch.Tensor) -> torch.Tensor:
    """As long as honest updates are, but unlike those before."""
    jump = draw("jump", client, number)
    return 6 * torch.nn.functional.normalize(jump, dim=0)


def federation(
    rounds: int,
    who: Callable[[int], list[int]],
    update: Client,
    *,
    window: int = 4,
    server_lr: float = 1.0,
    light: int = -1,
    warm: int = 0,
    again: bool = False,
) -> tuple[list[list[int]], Any, list[tuple[torch.Tensor, dict[int, torch.Tensor]]]]:
    """The clients kept in each round, the last state, and what each round was. The light client has
    hardly a sample.
    """
    defense, model, history, kept = (
        fldetector(window=window, warm=warm, again=again),
        draw("start"),
        [],
        [],
    )
    state = defense.init(replace(server_view(D), params=model))
    assert defense.send
    for number in range(rounds):
        model, state = defense.send(state, replace(server_view(D, number), params=model))
        clients = who(number)
        rows = {i: update(i, number, model) for i in clients}
        history.append((model, rows))
        view = replace(server_view(D, number), params=model, server_lr=server_lr)
        given = Updates(
            torch.stack(list(rows.values())),
            torch.tensor([1.0 if i != light else 1e-6 for i in clients]),
            torch.tensor(clients),
        )
        after, state = defense.apply(given, pickle.loads(pickle.dumps(state)), view)
        kept.append([i for i, weight in zip(clients, after.weight.tolist(), strict=True) if weight])
        model = model + server_lr * (after.weight @ after.rows) / after.weight.sum()
    return kept, state, history


def everybody(number: int) -> list[int]:
    return list(range(30))


def turns(number: int) -> list[int]:
    """Two thirds of them, others in each round."""
    return sorted(torch.randperm(30, generator=generator(number, "tests", "turns"))[:20].tolist())


@pytest.mark.parametrize("who", [everybody, turns])
@pytest.mark.parametrize("server_lr", [1.0, 0.4])
@pytest.mark.parametrize("bad", [0, 8, 20])
def test_agrees_with_the_reference(
    who: Callable[[int], list[int]], server_lr: float, bad: int
) -> None:
    def update(client: int, number: int, model: torch.Tensor) -> torch.Tensor:
        return (jumping if client < bad else honest)(client, number, model) + 0.1 * draw(
            "more", client, number
        )

    def uniform(number: int, m: int) -> list[list[float]]:
        found: list[list[float]] = torch.rand(
            10, m, generator=server_view(D, number).generator, dtype=torch.float64
        ).tolist()
        return found

    kept, state, history = federation(9, who, update, server_lr=server_lr)
    exact = [
        (model.double().numpy(), {i: row.double().numpy() for i, row in rows.items()})
        for model, rows in history
    ]
    wanted = twin.fldetector(exact, 4, server_lr, uniform)
    outside = [out for _, out in wanted] + [wanted[-1][1]] * (len(history) - len(wanted))
    assert [set(clients) for clients in kept] == [
        set(rows) - out for (_, rows), out in zip(history, outside, strict=True)
    ]
    assert state.excluded == wanted[-1][1]
    if state.errors:
        assert {i: np.mean(values) for i, values in state.errors.items()} == pytest.approx(
            wanted[-1][0], rel=1e-2
        )


@pytest.mark.parametrize("who", [everybody, turns])
@pytest.mark.parametrize("bad", [6, 20])
def test_excludes_inconsistent_clients_and_keeps_those_that_are_only_different(
    who: Callable[[int], list[int]], bad: int
) -> None:
    kept, state, _ = federation(
        14, who, lambda *args: (jumping if args[0] < bad else honest)(*args), window=8
    )
    assert state.excluded == frozenset(range(bad))
    assert kept[-1] == [i for i in who(13) if i >= bad]
    assert kept[0] == who(0)


def late(client: int, number: int, model: torch.Tensor) -> torch.Tensor:
    """Three clients jump about from the beginning, three others later on."""
    return (jumping if client < 3 or (client < 6 and number > 8) else honest)(client, number, model)


def test_a_detection_leads_back_to_the_first_model_and_excluded_clients_stay_excluded() -> None:
    kept, state, history = federation(13, everybody, late, server_lr=0.4)
    found = next(number for number, clients in enumerate(kept) if len(clients) < 30)
    assert found == 5  # four rounds after the first of which the curvature is known
    assert all(clients == list(range(3, 30)) for clients in kept[found:])
    models = [model for model, _ in history]
    assert torch.equal(models[found + 1], models[0]) and not torch.equal(models[found], models[0])
    assert not any(torch.equal(model, models[0]) for model in models[found + 2 :])
    assert not state.last and not state.errors and not len(state.steps) and not state.watching


def test_the_rows_of_the_detection_lead_back_whatever_the_server_lr() -> None:
    defense = fldetector(window=4, warm=0)
    state = defense.init(replace(server_view(D), params=draw("start")))
    model = draw("start")
    for number in range(6):
        rows = torch.stack([late(i, number, model) for i in range(30)])
        view = replace(server_view(D, number), params=model, server_lr=0.4)
        after, state = defense.apply(Updates(rows, torch.ones(30), torch.arange(30)), state, view)
        model = model + 0.4 * (after.weight @ after.rows) / after.weight.sum()
    assert state.restart and after.weight.tolist() == [0.0] * 3 + [1.0] * 27
    torch.testing.assert_close(model, draw("start"), rtol=1e-5, atol=1e-5)


def test_with_again_the_restarted_training_is_watched_too() -> None:
    kept, state, history = federation(16, everybody, late, again=True)
    assert kept[-1] == list(range(6, 30)) and state.watching
    assert sum(torch.equal(model, history[0][0]) for model, _ in history) == 3


@pytest.mark.parametrize("warm", [0, 3, 7])
def test_scores_begin_after_the_warm_rounds(warm: int) -> None:
    kept, _, _ = federation(14, everybody, late, warm=warm)
    assert (
        next(number for number, clients in enumerate(kept) if len(clients) < 30)
        == max(warm + 1, 2) + 3
    )


def test_the_gap_statistic_takes_the_logarithm_of_the_mean() -> None:
    drawn = torch.tensor([1.0, torch.e**2], dtype=torch.float64)
    assert module._gap(torch.ones(1, dtype=torch.float64), drawn).item() == pytest.approx(
        1.4338, abs=5e-5
    )


def test_a_round_of_excluded_clients_moves_nothing() -> None:
    def who(number: int) -> list[int]:
        return [0, 1, 2] if number == 11 else everybody(number)

    def update(client: int, number: int, model: torch.Tensor) -> torch.Tensor:
        return (jumping if client < 3 else honest)(client, number, model)

    _, state, history = federation(13, who, update)
    assert state.excluded == {0, 1, 2}
    assert torch.equal(history[11][0], history[12][0]) and not torch.equal(
        history[10][0], history[11][0]
    )
    _, watching, history = federation(13, who, update, again=True)
    assert watching.excluded >= {0, 1, 2} and torch.equal(history[11][0], history[12][0])


def test_a_new_client_is_not_scored_and_one_that_stayed_away_too_long_is_new() -> None:
    def who(number: int) -> list[int]:
        return [i for i in range(8) if (i != 6 or number == 5) and (i != 7 or number in {0, 8})]

    _, early, _ = federation(6, who, honest)
    assert sorted(early.errors) == [0, 1, 2, 3, 4, 5] and 6 in early.last and 7 not in early.last
    _, late, _ = federation(9, who, honest)
    assert 7 not in late.errors and late.last[7][0] == 8


def test_history_goes_by_client_and_not_by_row() -> None:
    def update(client: int, number: int, model: torch.Tensor) -> torch.Tensor:
        return (
            jumping(client, number, model)
            if client == 0
            else 0.3 * (3 * draw("optimum", client) - model)
        )

    # Client 0 takes part in every other round: all other rows are in another place each time, and
    # predicted exactly.
    _, state, _ = federation(
        7, lambda number: list(range(number % 2, 9)), update, window=9, light=0
    )
    assert sorted(state.errors) == list(range(9))
    # of the rounds with client 0
    assert all(max(values[::2]) < 0.01 for client, values in state.errors.items() if client)
    assert min(state.errors[0]) > 8.9


def test_the_curvature_is_that_of_the_dense_updates() -> None:
    steps = torch.stack([draw("step", number) for number in range(6)])
    matrix = twin.bfgs(
        list(steps[:-1].double().numpy()), list((steps[1:] - steps[:-1]).double().numpy())
    )
    changes = module._changes(steps, [1, 3], 0.5)
    for age in (1, 3):
        np.testing.assert_allclose(
            changes[age].numpy(),
            2 * matrix @ steps[-age:].sum(0).double().numpy(),
            rtol=1e-3,
            atol=1e-3,
        )


def test_without_movement_the_last_update_is_the_prediction() -> None:
    assert not module._changes(torch.zeros(4, D), [1, 2], 1.0)[2].any()


@pytest.mark.parametrize("seed", range(5))
def test_one_crowd_is_no_attack_and_two_are(seed: int) -> None:
    crowd = torch.randn(40, generator=generator(seed, "tests", "crowd"), dtype=torch.float64)
    assert not any(module._upper_cluster(crowd, generator(seed, "tests", "draws")))
    crowd[25:] += 10
    assert (
        module._upper_cluster(crowd, generator(seed, "tests", "draws"))
        == [False] * 25 + [True] * 15
    )


@pytest.mark.parametrize("scores", [[1.0], [1.0, 5.0], [2.0, 2.0, 2.0, 2.0]])
def test_too_few_or_equal_scores_accuse_nobody(scores: list[float]) -> None:
    assert not any(
        module._upper_cluster(torch.tensor(scores, dtype=torch.float64), torch.Generator())
    )


@pytest.mark.parametrize("size", [1e30, 3e38])
def test_huge_rows_are_scored(size: float) -> None:
    kept, state, _ = federation(
        7,
        everybody,
        lambda *args: (honest if args[0] else lambda *_: draw(*args).sign() * size)(*args),
    )
    assert state.excluded <= {0} and all(
        np.isfinite(values).all() for values in state.errors.values()
    )
    assert all(clients[-29:] == list(range(1, 30)) for clients in kept)
