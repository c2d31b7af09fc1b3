from __future__ import annotations

import pytest
import torch

from backstop.defenses.simple_clustering import simple_clustering
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator


def kept(rows: torch.Tensor) -> list[int]:
    updates = Updates(rows, torch.ones(len(rows)), torch.arange(len(rows)))
    after, _ = simple_clustering().apply(updates, None, None)  # type: ignore[arg-type]
    assert torch.equal(after.rows, rows)
    return after.weight.nonzero().flatten().tolist()


@pytest.mark.parametrize("n", [3, 7, 20, 41])
@pytest.mark.parametrize("seed", range(3))
def test_complete_linkage_is_that_of_a_library(n: int, seed: int) -> None:
    from sklearn.cluster import AgglomerativeClustering

    rows = torch.randn(n, 6, generator=generator(seed, "tests", "rows", n))
    unit = rows.double() / rows.double().norm(dim=1, keepdim=True)
    label = (
        AgglomerativeClustering(n_clusters=2, metric="precomputed", linkage="complete")
        .fit(1 - unit @ unit.T)
        .labels_
    )
    sides = [[i for i in range(n) if label[i] == side] for side in (0, 1)]
    assert kept(rows) == (max(sides, key=len) if len(sides[0]) != len(sides[1]) else list(range(n)))


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e6, 1e30, 1e38])
def test_a_minority_of_another_direction_is_left_out_however_long(factor: float) -> None:
    rows = torch.randn(9, 50, generator=generator(0, "tests", "rows")) * 0.1
    rows[:, 0] += 1
    rows[[2, 5, 6]] -= torch.eye(50)[0] * 2
    rows[[2, 6]] *= factor
    rows[3] *= factor
    assert kept(rows) == [0, 1, 3, 4, 7, 8]


def test_the_distance_of_two_clusters_is_that_of_their_farthest_rows() -> None:
    rows = torch.tensor([[1.0, 0.0], [2.0, 1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, 3.0]])
    after, _ = simple_clustering().apply(Updates(rows, torch.ones(5), torch.arange(5)), None, None)  # type: ignore[arg-type]
    assert after.weight.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]  # average linkage keeps the fifth


def test_the_larger_cluster_has_a_plain_mean() -> None:
    rows = torch.tensor([[1.0, 0.0], [3.0, 0.0], [-9.0, 0.0]])
    updates = Updates(rows, torch.tensor([1.0, 5.0, 90.0]), torch.arange(3))
    after, _ = simple_clustering().apply(updates, None, None)  # type: ignore[arg-type]
    assert after.weight.tolist() == [3.0, 3.0, 0.0]


def test_two_of_one_size_or_of_one_direction_are_both_kept() -> None:
    assert kept(torch.tensor([[1.0, 0.0]])) == [0]
    assert kept(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == [0, 1]
    assert kept(torch.tensor([[1.0, 0.0], [-1.0, 0.1], [2.0, 0.1], [-1.0, 0.0]])) == [0, 1, 2, 3]
    assert kept(torch.tensor([[0.1], [7.0], [3.3], [1e30], [0.0007]])) == [0, 1, 2, 3, 4]
    assert kept(torch.tensor([[0.1], [7.0], [-3.3]])) == [0, 1]


def test_among_equal_distances_the_smaller_clients_are_joined_first() -> None:
    assert kept(torch.eye(3)) == [0, 1]
    # distances of 1 throughout: the first cluster takes one after the other
    assert kept(torch.eye(5)) == [0, 1, 2, 3]
