"""The backdoor of A little is enough: the clipping by hand, whose spread it is, that it hides."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import Tensor

from backstop.attacks.alie_backdoor import alie_backdoor
from backstop.platform.seeds import generator
from tests.arena import Claim, effect
from tests.views import attack_view

CLAIM = Claim(  # measured with seeds 0 and 1: 0.91 and 0.67, weaker 0.25 and 0.06
    "badnets(share=0.2)+alie_backdoor(z=3)",
    effect=0.45,
    weaker="badnets(share=0.2)+alie_backdoor(z=1)",
    bend=0.35,
    changes={"clients": 40, "per_round": 20, "rounds": 30},
    defense="multi_krum(f=4)",
)


def sent(own: Tensor, rows: Tensor, z: float = 1.5) -> Tensor:
    craft = alie_backdoor(z=z).craft
    assert craft is not None
    return craft(None, rows, replace(attack_view("table"), unpoisoned=lambda: own.clone()))


@pytest.mark.parametrize("z", [0.3, 1.0, 1.5])
def test_each_coordinate_is_kept_within_the_spread_of_the_clients_own_values(z: float) -> None:
    draws = generator(0, "tests", "own")
    own = torch.randn(4, 60, generator=draws)
    rows = own + torch.randn(60, generator=draws) * torch.logspace(-2, 1, 60)
    found, kept = sent(own, rows, z), 0
    for j in range(60):
        values = own[:, j].double().tolist()
        mean = sum(values) / 4
        spread = sqrt(sum((value - mean) ** 2 for value in values) / 4)  # by m, as the authors
        poisoned = rows[:, j].double().mean().item()
        low, high = mean - z * spread, mean + z * spread
        kept += low < poisoned < high
        assert found[:, j].tolist() == pytest.approx([min(max(poisoned, low), high)] * 4, rel=1e-5)
    assert 10 < kept < 50


def test_one_client_alone_has_no_spread_and_sends_its_honest_update() -> None:
    own = torch.randn(1, 9, generator=generator(0, "tests", "own"))
    assert torch.equal(sent(own, own + 1), own)


def test_honest_rows_are_not_looked_at() -> None:
    own, rows = torch.tensor([[0.0], [2.0]]), torch.tensor([[9.0], [9.0]])
    view = replace(attack_view("table"), unpoisoned=lambda: own, honest=torch.full((8, 1), 50.0))
    craft = alie_backdoor(z=1.0).craft
    assert craft is not None and craft(None, rows, view).tolist() == [[2.0], [2.0]]


def test_the_largest_numbers_stay_finite() -> None:
    assert sent(torch.tensor([[3e38], [-3e38]]), torch.full((2, 1), 3e38), z=1e4).isfinite().all()


def test_it_hides_an_update_that_multi_krum_rejects_otherwise() -> None:
    """Measured with seeds 0 and 1: 0.36 and 0.25 instead of 0.00 and 0.00."""
    trained = "badnets(share=0.2)+overtrain"
    assert effect(CLAIM, trained) < 0.05
    assert effect(CLAIM, f"{trained}+alie_backdoor") > 0.2
