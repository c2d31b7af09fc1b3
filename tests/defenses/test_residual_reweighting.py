from __future__ import annotations

import pytest
import torch

from backstop.defenses.residual_reweighting import residual_reweighting
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator
from tests.views import server_view


def noise(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", "rows"))


def after(rows: torch.Tensor, weight: torch.Tensor | None = None, **params: float) -> Updates:
    given = Updates(
        rows, torch.ones(len(rows)) if weight is None else weight, torch.arange(len(rows))
    )
    return residual_reweighting(**params).apply(given, None, server_view(rows.shape[1]))[0]


def test_golden() -> None:
    # Sorted 0, 1, 2, 3, 100: the slopes' medians are 1, 1, 1, 1 and 98.33 of (100 - y_j) / (4 - j),
    # so the line is y = x. |r| is 0, 0, 0, 0, 96; the median of the four largest is 0, so τ is 1e-7
    # · 100 and the last confidence 2 √(2 / 5) · √(1 - 0.6) · 1e-5 / 96 = 8.3e-8. W is proportional
    # to the confidences.
    found = after(torch.tensor([[100.0], [1.0], [0.0], [3.0], [2.0]]))
    assert found.rows.flatten().tolist() == [4.0, 1.0, 0.0, 3.0, 2.0]
    assert found.weight[1:].tolist() == [1.0] * 4
    assert found.weight[0].item() == pytest.approx(
        (2 * 0.4**0.5 * 0.4**0.5 * 1e-5 / 96) ** 2, rel=1e-4
    )


def test_clients_far_out_in_some_coordinates_lose_values_there_and_weight_everywhere() -> None:
    rows = noise(20, 400)
    rows[[3, 11, 17], :40] = 30.0
    found = after(rows)
    bad = torch.zeros(20, dtype=torch.bool)
    bad[[3, 11, 17]] = True
    assert found.weight[bad].max() < found.weight[~bad].min()
    assert found.rows[bad, :40].max() < 10 and torch.equal(
        found.rows[:, 40:], after(rows[:, 40:]).rows
    )


def test_order_of_clients_does_not_matter_where_values_are_equal() -> None:
    rows = noise(9, 30).mul(2).round()
    order = torch.randperm(9, generator=generator(0, "tests", "order"))
    found, permuted = after(rows), after(rows[order])
    torch.testing.assert_close(permuted.rows, found.rows[order])
    torch.testing.assert_close(permuted.weight, found.weight[order])


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60])
def test_the_unit_does_not_matter(unit: float) -> None:
    rows = noise(8, 30)
    rows[2] += 20
    found, scaled = after(rows), after(rows * unit)
    assert torch.equal(scaled.rows, found.rows * unit) and torch.equal(scaled.weight, found.weight)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_rows_stay_as_they_are(n: int) -> None:
    rows, weight = noise(n, 5), torch.arange(1.0, n + 1)
    found = after(rows, weight)
    assert torch.equal(found.rows, rows) and torch.equal(found.weight, weight)


@pytest.mark.parametrize("n", [3, 6])
def test_identical_rows_keep_their_sample_counts(n: int) -> None:
    weight = torch.arange(1.0, n + 1)
    assert torch.equal(after(noise(1, 5).expand(n, -1), weight).weight, weight)


def test_a_majority_of_huge_rows_gives_no_nan() -> None:
    rows = noise(10, 64)
    rows[:6] = torch.where(rows[:6] > 0, 3e38, -3e38)
    found = after(rows, least=1.0)
    assert found.rows.isfinite().all() and found.weight.isfinite().all() and found.weight.sum() > 0


def test_a_line_that_leaves_float32_gives_its_largest_number() -> None:
    # the line is 3e38 · rank, ranks 0 and 1.5
    found = after(torch.tensor([[-3e38], [3e38], [3e38]]), strength=0.1, least=1.0)
    assert found.rows.flatten().tolist() == [
        0.0,
        torch.finfo(torch.float32).max,
        torch.finfo(torch.float32).max,
    ]
