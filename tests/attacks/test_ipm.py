"""Inner product manipulation: its row, the ε from which an average turns round, its effect."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from backstop.attacks.ipm import ipm
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import attack_view

CLAIM = Claim("ipm(epsilon=8)", effect=0.55, weaker="ipm(epsilon=0.5)", bend=0.5, untargeted=True)

HONEST = torch.randn(7, 40, generator=generator(0, "tests", "honest")) + 0.3


def sent(epsilon: float, honest: Tensor, rows: Tensor) -> Tensor:
    craft = ipm(epsilon=epsilon).craft
    assert craft is not None
    return craft(None, rows, replace(attack_view("table"), honest=honest))


def test_the_rows_are_the_honest_mean_turned_round() -> None:
    found = sent(0.5, HONEST, torch.ones(3, 40))
    reference = [-0.5 * sum(row[j].item() for row in HONEST) / 7 for j in range(40)]
    torch.testing.assert_close(found, torch.tensor(reference).repeat(3, 1))
    assert (found.double() @ HONEST.double().mean(0) < 0).all()


@pytest.mark.parametrize(
    ("epsilon", "forward"), [(0.5, True), (7 / 3 - 0.01, True), (7 / 3 + 0.01, False), (8.0, False)]
)
def test_the_average_turns_round_where_epsilon_exceeds_honest_by_malicious(
    epsilon: float, forward: bool
) -> None:
    average = torch.cat([sent(epsilon, HONEST, torch.ones(3, 40)), HONEST]).double().mean(0)
    assert (average @ HONEST.double().mean(0) > 0).item() is forward


def test_a_cohort_without_honest_clients_turns_its_own_mean_round() -> None:
    rows = torch.tensor([[1.0, 2.0], [3.0, -2.0]])
    assert sent(2.0, rows[:0], rows).tolist() == [[-4.0, 0.0]] * 2


def test_the_largest_numbers_stay_finite() -> None:
    large = torch.full((20, 2), 3e38)
    torch.testing.assert_close(sent(0.5, large, torch.ones(1, 2)), torch.full((1, 2), -1.5e38))
    assert (sent(1e4, large, torch.ones(1, 2)) == -torch.finfo(torch.float32).max).all()


def test_a_client_whose_training_diverged_does_not_save_the_others() -> None:
    honest = HONEST
    diverged = torch.cat([honest[:1] * torch.nan, honest, honest[:1] * torch.inf])
    assert torch.equal(sent(0.5, diverged, torch.ones(3, 40)), sent(0.5, honest, torch.ones(3, 40)))
