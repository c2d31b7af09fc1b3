from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from backstop.defenses.flame import flame
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator
from tests.views import server_view


def updates(rows: torch.Tensor, weight: torch.Tensor | None = None) -> Updates:
    return Updates(
        rows, torch.ones(len(rows)) if weight is None else weight, torch.arange(len(rows))
    )


def kept(rows: torch.Tensor) -> list[int]:
    return (
        flame()
        .apply(updates(rows), None, server_view(rows.shape[1]))[0]
        .weight.nonzero()
        .flatten()
        .tolist()
    )


def around(direction: int, n: int, spread: float) -> torch.Tensor:
    # so long
    rows = torch.randn(n, 300, generator=generator(0, "tests", "rows", direction)) * spread / 17.3
    rows[:, direction] += 1
    return rows


def mean(after: Updates) -> torch.Tensor:
    found: torch.Tensor = (after.weight.double() / after.weight.sum()) @ after.rows.double()
    return found


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_a_tight_malicious_cluster_is_left_out_however_long_its_rows(factor: float) -> None:
    # the attackers are the densest group, but no majority
    rows = torch.cat([around(0, 4, 0.01) * factor, around(1, 7, 1.0)])
    assert set(kept(rows)) <= set(range(4, 11)) and len(kept(rows)) >= 6


@pytest.mark.parametrize("size", [0.0, 1.0, 1e6])
def test_the_clusters_are_those_of_the_rows_whatever_the_global_model(size: float) -> None:
    rows = torch.cat([around(0, 4, 0.01), around(1, 7, 1.0)])
    view = replace(server_view(300), params=torch.full((300,), size))
    assert not flame().apply(updates(rows), None, view)[0].weight[:4].any()


@pytest.mark.parametrize("factor", [1e6, 1e30, 1e38])
def test_a_boosted_row_is_judged_by_its_direction_and_clipped(factor: float) -> None:
    rows = around(0, 9, 0.1)
    rows[3] = rows[4] * factor
    rows[7] = -rows[4] * factor
    after, _ = flame(noise=0.0).apply(updates(rows), None, server_view(300))
    assert after.weight[3] and not after.weight[7]
    assert after.rows[3].norm().item() == pytest.approx(
        rows.double().norm(dim=1).median().item(), rel=1e-5
    )


def test_the_aggregate_moves_by_the_noise_and_nothing_else() -> None:
    rows = around(0, 8, 0.5).repeat(1, 40) * 3
    given = updates(rows, torch.tensor([1.0, 50.0, 3.0, 1e-3, 7.0, 7.0, 1.0, 2.0]))
    silent, noisy = (
        flame(noise=noise).apply(given, None, server_view(12_000))[0] for noise in (0.0, 0.02)
    )
    moved = mean(noisy) - mean(silent)
    limit = rows.norm(dim=1).sort().values[3:5].mean().item()
    assert torch.equal(silent.weight, noisy.weight) and not silent.weight.all()
    torch.testing.assert_close(
        moved.float(),
        0.02 * limit * torch.randn(12_000, generator=server_view(12_000).generator),
        rtol=1e-3,
        atol=1e-5,
    )
    assert moved.std().item() == pytest.approx(0.02 * limit, rel=0.03)
    assert not torch.equal(
        flame().apply(given, None, server_view(12_000, 1))[0].rows,
        flame().apply(given, None, server_view(12_000))[0].rows,
    )


def test_sample_counts_have_no_say_in_who_is_kept() -> None:
    rows = torch.cat([around(0, 3, 0.1), around(1, 4, 0.1)])
    after, _ = flame().apply(
        updates(rows, torch.tensor([1e9, 1e9, 1e9, 1.0, 1.0, 1.0, 1.0])), None, server_view(300)
    )
    assert after.weight.tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]


def test_one_and_two_rows_stay_and_of_three_the_nearest_two() -> None:
    assert kept(torch.tensor([[1.0, 0.0]])) == [0]
    assert kept(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == [0, 1]
    assert kept(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 1.0]])) == [0, 2]
    assert kept(torch.tensor([[1.0], [-1.0], [-3.0]])) == [1, 2]


def test_noise_on_the_largest_rows_stays_finite() -> None:
    rows = torch.full((4, 300), 3.4e38)
    assert flame(noise=1.0).apply(updates(rows), None, server_view(300))[0].rows.isfinite().all()
