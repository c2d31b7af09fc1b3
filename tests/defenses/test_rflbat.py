from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.rflbat import _clusters, _plane, rflbat
from backstop.platform import robust
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator
from tests.views import server_view


def kept(rows: Tensor, **params: float) -> list[int]:
    given = Updates(rows, torch.ones(len(rows)), torch.arange(len(rows)))
    after = rflbat(**params).apply(given, None, server_view(rows.shape[1]))[0]
    assert torch.equal(after.rows, rows)
    return after.weight.nonzero().flatten().tolist()


def noise(n: int, d: int, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", name))


def attacked(far: float) -> Tensor:
    """Four far rows in four directions, four colluders, twelve honest ones."""
    rows = noise(20, 2)
    rows[:4] = far * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    rows[4:8] += 12
    return rows


@pytest.mark.parametrize("far", [1e3, 1e30, 3e38])
def test_numbers_of_rows_are_those_of_the_full_list(far: float) -> None:
    # The far rows go in the first filter, so every other row stands four places further in the full
    # list than among those left. In the full list those places are the far rows' for the colluders,
    # and these are of no one direction.
    assert kept(attacked(far), eps1=3.0) == list(range(8, 20))


def test_the_last_filter_keeps_the_numbers_of_the_full_list_too() -> None:
    rows = torch.zeros(17, 2)
    rows[0] = 1e4
    rows[1:5] = torch.tensor([60.0, 60.0]) + 0.01 * noise(4, 2)
    rows[5:] = noise(12, 2, "honest")
    honest = rows[5:].double()
    total = torch.stack([(honest - row).norm(dim=1).sum() for row in honest])
    near = [5 + place for place in range(12) if total[place] <= 1.2 * total.quantile(0.5)]
    assert kept(rows, eps2=1.2) == near
    assert 6 <= len(near) < 12


def test_the_less_similar_cluster_is_kept_even_if_it_is_smaller() -> None:
    rows = noise(13, 2)
    rows[:8] += 12
    assert kept(rows) == list(range(8, 13))


def test_first_filter_by_hand() -> None:
    # On a line, D = 13, 11, 11, 31 with median 12: the last one is beyond 2 medians, and nobody is
    # when it is gone (3, 2, 3).
    line = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    assert kept(line, eps1=2.0) == [0, 1, 2]
    assert kept(line, eps1=31 / 12) == [0, 1, 2, 3]


@pytest.mark.parametrize("far", [1e6, 1e30])
def test_rounding_errors_beside_a_far_row_are_no_clusters(far: float) -> None:
    rows = noise(8, 30)  # too few for the first filter
    rows[2] = far
    assert kept(rows) == [0, 1, 3, 4, 5, 6, 7]


def test_plane_is_that_of_the_matrix() -> None:
    rows = noise(12, 500) * torch.linspace(3, 0.1, 500)
    centered = (rows - rows.mean(0)).double()
    wanted = centered @ torch.linalg.svd(centered, full_matrices=False)[2][:2].T
    found = _plane(robust.distances(rows))
    scale = found.norm() / wanted.norm()
    np.testing.assert_allclose(
        (found[:, None] - found).norm(dim=2),
        scale * (wanted[:, None] - wanted).norm(dim=2),
        rtol=1e-4,
    )


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_number_of_clusters(groups: int) -> None:
    centers = torch.tensor([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0]])[:groups]
    points = (
        centers.repeat(8, 1) + torch.randn(8 * groups, 2, generator=generator(0, "tests", "points"))
    ).double()
    label = _clusters(points, generator(0, "tests", "draws"))
    assert label.reshape(8, groups).unique(dim=0).shape == (1, groups)
    assert len(label.unique()) == groups


def test_two_rows_sent_by_many_are_two_clusters() -> None:
    assert kept(torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 4)) in (
        list(range(5)),
        list(range(5, 9)),
    )
