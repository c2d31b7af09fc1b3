"""Mimic: whom it copies, and that it bites where clients differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.attacks.mimic import mimic
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import attack_view

CLAIM = Claim(
    "mimic",
    effect=0.15,
    weaker="mimic",
    bend=0.0,
    changes={"malicious": 0.4, "alpha": "shards"},
    untargeted=True,
)


def sent(honest: Tensor, m: int = 3) -> Tensor:
    craft = mimic().craft
    assert craft is not None
    return craft(None, torch.ones(m, honest.shape[1]), replace(attack_view("table"), honest=honest))


def reference(honest: Tensor) -> int:
    """The direction of the largest variance by power iteration on the covariance matrix itself."""
    away = honest.double().numpy()
    away = away - away.mean(0)
    covariance, z = away.T @ away, np.ones(away.shape[1])
    for _ in range(2000):
        z = covariance @ z
        z /= np.linalg.norm(z)
    return int(np.abs(away @ z).argmax())


@pytest.mark.parametrize("number", range(5))
def test_the_client_farthest_out_along_the_largest_variance_is_copied_bit_for_bit(
    number: int,
) -> None:
    spread = torch.logspace(0.5, -0.5, 12)
    honest = torch.randn(9, 12, generator=generator(0, "tests", "honest", number)) * spread
    assert torch.equal(sent(honest), honest[reference(honest)].repeat(3, 1))


def test_what_all_clients_share_does_not_count() -> None:
    honest = torch.randn(9, 12, generator=generator(0, "tests", "honest")) * torch.logspace(
        0.5, -0.5, 12
    )
    shared = torch.full((12,), 100.0)
    assert torch.equal(sent(honest + shared), (honest + shared)[reference(honest)].repeat(3, 1))


def test_the_longest_row_need_not_be_the_one() -> None:
    honest = torch.tensor(
        [[0.0, 5.0], [3.0, 0.0], [3.1, 0.0], [-3.0, 0.0], [-3.3, 0.0], [0.0, 0.0]]
    )
    assert sent(honest, 1).tolist() == [pytest.approx([-3.3, 0.0])]


def test_the_largest_numbers_and_a_single_client() -> None:
    assert (
        sent(torch.tensor([[3e38, 0.0], [-1e38, 0.0], [0.0, 0.0]])).tolist()
        == [[pytest.approx(3e38), 0.0]] * 3
    )
    assert sent(torch.tensor([[1.0, 2.0]])).tolist() == [[1.0, 2.0]] * 3


def test_a_client_whose_training_diverged_does_not_save_the_others() -> None:
    honest = torch.randn(9, 12, generator=generator(0, "tests", "honest"))
    diverged = torch.cat([honest[:1] * torch.nan, honest, honest[:1] * torch.inf])
    assert torch.equal(sent(diverged), sent(honest))
