from __future__ import annotations

import pytest
import torch

from backstop.defenses import auror as module
from backstop.defenses.auror import auror
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator
from tests.references import auror as twin


def kept(rows: torch.Tensor, **params: float) -> list[int]:
    updates = Updates(rows, torch.ones(len(rows)), torch.arange(len(rows)))
    after, _ = auror(**params).apply(updates, None, None)  # type: ignore[arg-type]
    assert torch.equal(after.rows, rows)
    return after.weight.nonzero().flatten().tolist()


def honest(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", "rows"))


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1.0, 1e6, 1e37])
@pytest.mark.parametrize("shift", [6.0, -6.0])
def test_attackers_on_a_few_coordinates_are_rejected_whatever_the_scale(
    scale: float, shift: float
) -> None:
    rows = honest(20, 400)
    rows[[2, 7, 11, 19], :60] += shift  # mostly like the others, even in length
    assert kept(rows * scale) == [i for i in range(20) if i not in {2, 7, 11, 19}]


def test_without_two_groups_nobody_is_rejected() -> None:
    assert kept(honest(20, 400)) == list(range(20))
    # all coordinates count, each client is seldom in the minority
    assert kept(honest(20, 400), separation=0.0) == list(range(20))


def test_one_is_rejected_for_more_than_half_of_the_indicative_coordinates_only() -> None:
    rows = torch.tensor([[0.0], [0.1], [0.2], [0.1]]).repeat(1, 5)
    rows[1, :2] = rows[2, 2:4] = rows[3, 4] = 9.0
    assert kept(rows[:, :4]) == [0, 1, 2, 3]  # clients 1 and 2: two of four
    assert kept(rows[:, [0, 1, 4]]) == [0, 2, 3]  # client 1: two of three
    assert kept(rows, share=0.39) == [0, 3]  # clients 1 and 2: two of five
    assert kept(rows, share=0.4) == [0, 1, 2, 3]


def test_never_rejects_everybody() -> None:
    assert kept(torch.eye(3) * 9, share=0.0) == [0, 1, 2]
    rows = torch.eye(4) * 9
    rows = torch.cat([rows, rows[:, :1]], dim=1)
    assert kept(rows, share=0.0) == [1, 2, 3]


def test_halves_have_no_minority() -> None:
    rows = torch.tensor([[0.0], [0.1], [9.0], [9.1]]).repeat(1, 3)
    assert module._minorities(rows, 1.0)[1].all() and kept(rows, separation=1.0) == [0, 1, 2, 3]
    rows[3, 0] = 0.2  # one coordinate with a minority among three indicative ones
    assert kept(rows, separation=1.0) == [0, 1, 2, 3]
    assert kept(rows, separation=1.0, share=0.3) == [0, 1, 3]


@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_rows_stay(n: int) -> None:
    assert kept(torch.eye(n, 5) * 100) == list(range(n))


def test_equal_values_are_no_groups() -> None:
    rows = torch.full((7, 4), 0.1)
    assert kept(rows, separation=0.0) == list(range(7))
    assert not module._minorities(rows, 0.0)[1].any()


@pytest.mark.parametrize("n", [3, 4, 9, 30])
def test_clusters_are_the_best_of_all_splits(n: int) -> None:
    rows = honest(n, 25)
    smaller, indicative = module._minorities(rows, 0.0)
    assert indicative.all()
    for column, found in zip(rows.T.double().tolist(), smaller.T.tolist(), strict=True):
        low, high = twin.two_means(column)
        minority = low if len(low) < len(high) else high if len(high) < len(low) else []
        assert found == [value in minority for value in column]


def test_pieces_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = honest(12, 70)
    rows[3, :40] += 9.0
    rows[4, 20:70] += 9.0
    whole = [kept(rows, share=share) for share in (0.3, 0.5, 0.6)]
    assert len({len(clients) for clients in whole}) > 1
    monkeypatch.setattr(module, "_PIECE", 16)
    assert [kept(rows, share=share) for share in (0.3, 0.5, 0.6)] == whole


@pytest.mark.parametrize("size", [1e30, 3.4e38])
def test_huge_rows_are_rejected(size: float) -> None:
    rows = honest(9, 30)
    rows[[4, 6]] = size
    assert not {4, 6} & set(kept(rows))
    rows[4] = -size  # three groups: 2-means sees one of the two
    assert 4 not in kept(rows)


@pytest.mark.parametrize("far", [10.0, 1e3, 1e6])
def test_colluders_do_not_hide_each_other_by_going_farther(far: float) -> None:
    rows = honest(20, 50)
    rows[3] += far
    rows[5] -= far
    assert module._minorities(rows, 4.0)[1].float().mean() > 0.9
