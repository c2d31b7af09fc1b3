from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from backstop.defenses import flanders as module
from backstop.defenses.flanders import flanders
from backstop.platform.contract import Defense, Updates
from backstop.platform.seeds import generator
from tests.references import flanders as twin
from tests.views import server_view

D = 40


def draw(*name: object, d: int = D) -> torch.Tensor:
    """A vector of its own for each name."""
    return torch.randn(d, generator=generator(0, "tests", "flanders", *map(str, name)))


def honest(client: int, number: int, model: torch.Tensor) -> torch.Tensor:
    """A step towards the client's own optimum, with noise."""
    return 0.2 * (draw("optimum") + 0.3 * draw("optimum", client) - model) + 0.02 * draw(
        "noise", client, number
    )


def federation(
    defense: Defense,
    rounds: int,
    who: Callable[[int], list[int]],
    update: Callable[[int, int, torch.Tensor], torch.Tensor],
) -> tuple[list[set[int]], Any, list[tuple[torch.Tensor, dict[int, torch.Tensor]]]]:
    """The clients kept in each round, the last state, and what each round was."""
    model, history, kept = draw("start"), [], []
    state = defense.init(replace(server_view(D), params=model))
    for number in range(rounds):
        rows = {i: update(i, number, model) for i in who(number)}
        history.append((model, rows))
        given = Updates(
            torch.stack(list(rows.values())), torch.ones(len(rows)), torch.tensor(list(rows))
        )
        view = replace(server_view(D, number), params=model)
        after, state = defense.apply(given, pickle.loads(pickle.dumps(state)), view)
        kept.append({i for i, weight in zip(rows, after.weight.tolist(), strict=True) if weight})
        model = model + (after.weight @ after.rows) / after.weight.sum()
    return kept, state, history


def everybody(number: int) -> list[int]:
    return list(range(10))


def turns(number: int) -> list[int]:
    """Some ten of fifteen, others in each round."""
    return [i for i in range(15) if (i * 7 + number) % 3]


@pytest.mark.parametrize("who", [everybody, turns])
@pytest.mark.parametrize(
    ("sampled", "window", "f", "early"),
    [(500, 10, None, True), (7, 3, 3, False), (1, 1, 0, False), (9, 1, 2, False)],
)
def test_agrees_with_the_reference(
    who: Callable[[int], list[int]], sampled: int, window: int, f: int | None, early: bool
) -> None:
    defense = flanders(f=f, sampled=sampled, window=window, ridge=0.3, sweeps=2, early=early)
    kept, state, history = federation(defense, 7, who, honest)
    where = state.coordinates
    exact = [
        (model[where].double().numpy(), {i: row[where].double().numpy() for i, row in rows.items()})
        for model, rows in history
    ]
    assert kept == [clients for _, clients in twin.flanders(exact, f, window, 0.3, 2, early)]
    assert len(where) == len(where.unique()) == min(sampled, D)
    assert len(state.rounds) == min(window, 7)


def test_the_forecast_continues_a_matrix_autoregression() -> None:
    a, b = (
        torch.linalg.qr(
            torch.randn(n, n, generator=generator(0, "tests", "mar", n), dtype=torch.float64)
        ).Q
        for n in (6, 4)
    )
    series = [torch.randn(4, 6, generator=generator(0, "tests", "mar"), dtype=torch.float64)]
    for _ in range(12):
        series.append(b @ series[-1] @ a)
    found = module._forecast(torch.stack(series[:-1]), 1e-9, 50)
    torch.testing.assert_close(found, series[-1], rtol=1e-4, atol=1e-4)
    wanted = twin.forecast([matrix.T.numpy() for matrix in series[:-1]], 0.5, 3)
    np.testing.assert_allclose(
        module._forecast(torch.stack(series[:-1]), 0.5, 3).numpy(), wanted.T, rtol=1e-9
    )


@pytest.mark.parametrize("who", [everybody, turns])
def test_leaves_out_attackers_that_are_no_longer_than_others_even_if_they_are_the_majority(
    who: Callable[[int], list[int]],
) -> None:
    def update(client: int, number: int, model: torch.Tensor) -> torch.Tensor:
        if client < 6 and number >= 4:
            direction: torch.Tensor = torch.nn.functional.normalize(
                draw("attack", client, number), dim=0
            )
            return direction * float(honest(client, number, model).norm())
        return honest(client, number, model)

    kept, _, history = federation(flanders(f=6, window=10, early=True), 8, who, update)
    for number in range(4, 8):
        assert all(i >= 6 for i in kept[number])
    assert all(
        len(clients) == len(rows) - 6 for clients, (_, rows) in zip(kept, history, strict=True)
    )


def test_who_was_left_out_is_remembered_as_the_global_model() -> None:
    kept, state, history = federation(flanders(f=3, window=4), 6, everybody, honest)
    for each, clients, (model, rows) in zip(state.rounds, kept[2:], history[2:], strict=True):
        assert set(each.models) == clients and len(clients) == 7
        torch.testing.assert_close(each.start.float(), model[state.coordinates])
        for i in clients:
            torch.testing.assert_close(each.models[i].float(), (model + rows[i])[state.coordinates])


def test_the_coordinates_are_those_of_the_first_round() -> None:
    first = flanders(sampled=5).init(server_view(D))
    _, last, _ = federation(flanders(sampled=5), 3, everybody, honest)
    assert torch.equal(first.coordinates, last.coordinates)
    rows = torch.ones(4, D)
    rows[1] *= -100
    rows[1, first.coordinates] = 0.5  # looks best where it is looked at
    after, _ = flanders(sampled=5, f=3, early=True).apply(
        Updates(rows, torch.ones(4), torch.arange(4)), first, server_view(D)
    )
    assert after.weight.tolist() == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("n", "f", "count"),
    [(1, None, 1), (2, None, 2), (3, None, 2), (10, None, 6), (10, 0, 10), (10, 9, 1), (10, 99, 1)],
)
def test_leaves_out_as_many_as_assumed_but_never_all(n: int, f: int | None, count: int) -> None:
    kept, _, _ = federation(
        flanders(f=f, window=10, early=True), 3, lambda _: list(range(n)), honest
    )
    assert [len(clients) for clients in kept] == [count] * 3
    kept, state, _ = federation(flanders(f=f), 3, lambda _: list(range(n)), honest)
    assert [len(clients) for clients in kept] == [n, count, count] and len(state.rounds) == 1


@pytest.mark.parametrize("size", [1e30, 3e38])
def test_huge_rows_and_a_global_model_that_they_have_broken(size: float) -> None:
    kept, _, _ = federation(
        flanders(f=1, window=10, early=True),
        4,
        lambda _: list(range(5)),
        lambda *args: honest(*args) if args[0] else torch.full((D,), size),
    )
    assert all(0 not in clients for clients in kept)
    view = replace(server_view(D), params=torch.full((D,), torch.inf))
    defense = flanders()
    state = defense.init(view)
    for _ in range(3):
        after, state = defense.apply(
            Updates(torch.ones(3, D), torch.ones(3), torch.arange(3)), state, view
        )
    assert after.weight.sum() == 2
