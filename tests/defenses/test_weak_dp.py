from __future__ import annotations

from typing import Literal

import pytest
import torch

from backstop.defenses.norm_clip import norm_clip
from backstop.defenses.weak_dp import weak_dp
from backstop.platform.contract import Updates
from tests.views import server_view


@pytest.mark.parametrize("n", [1, 30])
def test_the_noise_is_on_the_aggregate_whatever_the_number_of_rows(n: int) -> None:
    d = 40_000
    given = Updates(torch.zeros(n, d), torch.ones(n), torch.arange(n))
    noise = weak_dp(noise=0.5).apply(given, None, server_view(d))[0].rows
    assert noise.std().item() == pytest.approx(0.5, rel=0.02) and abs(noise.mean().item()) < 0.01


def test_each_round_has_its_own_noise() -> None:
    given = Updates(torch.zeros(2, 5), torch.ones(2), torch.arange(2))
    first, second = (
        weak_dp().apply(given, None, server_view(5, number))[0].rows for number in (0, 1)
    )
    assert (first != second).all()


def test_the_noise_of_the_default_is_the_published_one() -> None:
    d = 40_000
    given = Updates(torch.zeros(3, d), torch.ones(3), torch.arange(3))
    assert weak_dp().apply(given, None, server_view(d))[0].rows.std().item() == pytest.approx(
        0.025, rel=0.02
    )


def test_without_noise_it_is_the_plain_mean_of_clipped_rows() -> None:
    rows = torch.tensor([[0.3, 0.4], [30.0, 40.0], [0.0, -3e38]])
    given = Updates(rows, torch.tensor([1.0, 2.0, 5.0]), torch.arange(3))
    cases: tuple[tuple[Literal["equal", "samples"], list[float]], ...] = (
        ("equal", [(0.3 + 1.2) / 3, (0.4 + 1.6 - 2.0) / 3]),
        ("samples", [(0.3 + 2.4) / 8, (0.4 + 3.2 - 10.0) / 8]),
    )
    for weights, wanted in cases:
        clipped = norm_clip(norm=2.0, weights=weights).apply(given, None, server_view(2))[0]
        after = weak_dp(norm=2.0, noise=0.0, weights=weights).apply(given, None, server_view(2))[0]
        assert clipped.weight.sum() == 8.0
        torch.testing.assert_close(after.rows, (clipped.weight @ clipped.rows / 8).unsqueeze(0))
        torch.testing.assert_close(after.rows, torch.tensor([wanted]))
