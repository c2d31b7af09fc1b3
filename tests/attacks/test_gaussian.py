"""Gaussian noise: its moments, that nothing of the update is left, and that it bites."""

from __future__ import annotations

from dataclasses import replace

import torch

from backstop.attacks.gaussian import gaussian
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import attack_view

CLAIM = Claim("gaussian(std=3)", effect=0.1, weaker="gaussian(std=0.3)", bend=0.08, untargeted=True)


def drawn(rows: torch.Tensor, round: int = 0, std: float = 2.0) -> torch.Tensor:  # noqa: A002 -- as in the view
    craft = gaussian(std=std).craft
    assert craft is not None
    return craft(
        None, rows, replace(attack_view("table"), generator=generator(0, "tests", "attack", round))
    )


def test_every_row_is_noise_of_its_own_with_mean_0_and_the_stated_deviation() -> None:
    found = drawn(torch.full((3, 40_000), 100.0)).double()
    assert (found.mean(1).abs() < 4 * 2 / 200).all()  # four standard errors
    torch.testing.assert_close(found.std(1), torch.full((3,), 2.0).double(), rtol=0.02, atol=0)
    assert (torch.corrcoef(found) - torch.eye(3)).abs().max() < 0.02
    # φ(1): the shape is the normal one
    assert ((found < 2).double().mean(1) - 0.8413).abs().max() < 0.01


def test_the_update_does_not_matter_but_the_round_does() -> None:
    one, other = torch.zeros(2, 10), torch.full((2, 10), 1e30)
    assert torch.equal(drawn(one), drawn(other))
    assert not torch.equal(drawn(one), drawn(one, round=1))
