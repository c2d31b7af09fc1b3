from __future__ import annotations

from typing import Any

import pytest
import torch

from backstop.defenses.signguard import _bandwidth, signguard
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator
from tests.views import server_view


def after(rows: torch.Tensor, **params: Any) -> Updates:
    given = Updates(rows, torch.ones(len(rows)), torch.arange(len(rows)))
    return signguard(**params).apply(given, None, server_view(rows.shape[1]))[0]


def kept(rows: torch.Tensor, **params: Any) -> list[int]:
    return after(rows, **params).weight.nonzero().flatten().tolist()


def honest(n: int, d: int = 2000) -> torch.Tensor:
    """Rows with some 60 % positive entries."""
    return torch.randn(n, d, generator=generator(0, "tests", "rows")) + 0.25


def test_signs_tell_rows_apart_that_norms_do_not() -> None:
    rows = honest(12)
    rows[[0, 5, 7]] *= -1
    assert kept(rows) == [1, 2, 3, 4, 6, 8, 9, 10, 11]


def test_zeros_are_a_sign_of_their_own() -> None:
    rows = honest(12)
    rows[[0, 5, 7], ::2] = 0.0
    assert not set(kept(rows)) & {0, 5, 7}


@pytest.mark.parametrize(
    ("factor", "stays"),
    [(0.11, True), (0.09, False), (2.9, True), (3.1, False), (1e30, False), (0.0, False)],
)
def test_the_norm_band_is_a_tenth_to_three_times_the_median(factor: float, stays: bool) -> None:
    rows = torch.ones(7, 20)  # equal signs: one cluster
    rows[4] *= factor
    if not factor:
        rows[4] = 1e-30
    assert (4 in kept(rows)) == stays and len(kept(rows)) == 6 + stays


def test_long_rows_are_clipped_to_the_median_norm_and_short_ones_stay_bit_for_bit() -> None:
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
    assert after(rows).rows[:, 0].tolist() == [1.0, 2.0, 2.0, 2.0]


def test_where_the_filters_agree_on_nobody_the_norms_decide() -> None:
    rows = torch.ones(5, 10)
    for i, down in enumerate([0, 1, 2, 9, 10]):  # rows 0 to 2 are the largest cluster
        rows[i, :down] = -1
    assert kept(rows, share=1.0) == [0, 1, 2]
    assert kept(rows * torch.tensor([[1e-3], [1e3], [1e3], [1.0], [1.1]]), share=1.0) == [3, 4]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_than_four_rows_are_one_cluster(n: int) -> None:
    assert kept(torch.eye(3)[:n] * 2 - 1, share=1.0) == list(range(n))


def test_one_coordinate_and_zero_rows() -> None:
    assert kept(torch.tensor([[1.0], [2.0], [1.0], [1.0], [-1.0]])) == [0, 1, 2, 3]
    assert kept(torch.zeros(5, 3)) == [0, 1, 2, 3, 4]


def test_the_bandwidth_is_the_mean_distance_to_the_farthest_of_the_nearest_half() -> None:
    assert _bandwidth([[0.0], [1.0], [3.0], [7.0]]) == 2.0


def test_the_coordinates_that_are_looked_at_are_consecutive_unless_spread() -> None:
    start = int(torch.randint(1800, (), generator=server_view(2000).generator))
    inside, outside = honest(12), honest(12)
    inside[[0, 5, 7], start : start + 200] = -1.0
    hidden = outside[:, start : start + 200].clone()
    outside[[0, 5, 7]] = -1.0
    outside[:, start : start + 200] = hidden
    assert not {0, 5, 7} & set(kept(inside))
    assert {0, 5, 7} & set(kept(outside))
    assert not {0, 5, 7} & set(kept(outside, coordinates="spread"))
