"""A little is enough: the largest z allowed, the row per coordinate, and that it bites."""

from __future__ import annotations

from dataclasses import replace
from math import floor, sqrt

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from backstop.attacks.alie import _most, alie
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import attack_view

CLAIM = Claim(
    "alie(z=1.5)",
    effect=0.28,
    weaker="alie(z=0.5)",
    bend=0.25,
    changes={"malicious": 0.4, "alpha": "shards"},
    untargeted=True,
)


def sent(honest: Tensor, rows: Tensor, z: float | None = None) -> Tensor:
    craft = alie(z=z).craft
    assert craft is not None
    return craft(None, rows, replace(attack_view("table"), honest=honest))


@pytest.mark.parametrize(
    ("n", "m"), [(50, 24), (50, 12), (20, 4), (20, 9), (10, 4), (51, 25), (7, 3)]
)
def test_z_is_the_quantile_of_the_paper(n: int, m: int) -> None:
    s = floor(n / 2 + 1) - m
    assert _most(n, m) == pytest.approx(norm.ppf((n - m - s) / (n - m)), abs=1e-12)


def test_z_by_hand() -> None:
    assert _most(50, 24) == pytest.approx(1.4261, abs=1e-4)  # φ(z) = 24/26
    assert _most(20, 4) == pytest.approx(0.1573, abs=1e-4)  # φ(z) = 9/16


@pytest.mark.parametrize(("n", "m"), [(10, 1), (10, 2), (9, 1), (2, 1), (3, 3), (10, 8)])
def test_z_is_never_negative(n: int, m: int) -> None:
    assert _most(n, m) == pytest.approx(0, abs=1e-12)


def test_z_is_finite_where_malicious_clients_are_the_majority() -> None:
    # one honest client lies farther out
    assert _most(20, 12) == pytest.approx(norm.ppf(7 / 8), abs=1e-12)


def test_each_coordinate_moves_by_its_own_deviation() -> None:
    honest = torch.randn(16, 30, generator=generator(0, "tests", "honest")) * torch.logspace(
        -3, 3, 30
    )
    found = sent(honest, torch.ones(4, 30))
    for j in range(30):
        values = honest[:, j].double().tolist()
        mean = sum(values) / 16
        deviation = sqrt(sum((value - mean) ** 2 for value in values) / 16)
        assert found[:, j].tolist() == pytest.approx(
            [mean - norm.ppf(9 / 16) * deviation] * 4, rel=1e-5
        )


def test_one_malicious_client_does_what_many_do() -> None:
    honest = torch.randn(9, 30, generator=generator(0, "tests", "honest"))
    assert torch.equal(
        sent(honest, torch.zeros(1, 30), z=1.5)[0], sent(honest, torch.zeros(6, 30), z=1.5)[5]
    )
    assert not torch.allclose(sent(honest, torch.zeros(1, 30), z=1.5)[0], honest.mean(0), atol=0.5)


def test_without_honest_clients_and_with_the_largest_numbers_it_stays_finite() -> None:
    rows = torch.tensor([[0.0, 2.0], [2.0, 2.0]])
    assert sent(rows[:0], rows, z=1.0).tolist() == [[0.0, 2.0]] * 2
    assert sent(torch.tensor([[3e38], [-3e38]]), torch.ones(1, 1), z=1e4).isfinite().all()


def test_a_client_whose_training_diverged_does_not_save_the_others() -> None:
    honest = torch.randn(16, 30, generator=generator(0, "tests", "honest"))
    diverged = torch.cat([honest[:1] * torch.nan, honest, honest[:1] * torch.inf])
    assert torch.equal(sent(diverged, torch.ones(4, 30)), sent(honest, torch.ones(4, 30)))
