from __future__ import annotations

import pytest
import torch

from backstop.defenses.dnc import dnc
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator
from tests.views import server_view


def kept(rows: torch.Tensor, round: int = 0, **params: float | None) -> list[int]:  # noqa: A002 -- the view's name
    given = Updates(rows, torch.ones(len(rows)), torch.arange(len(rows)))
    after = dnc(**params).apply(given, None, server_view(rows.shape[1], round))[0]  # type: ignore[arg-type]
    assert torch.equal(after.rows, rows)
    return after.weight.nonzero().flatten().tolist()


@pytest.mark.parametrize("coordinates", [200, 10_000])
def test_finds_colluders_that_are_no_longer_than_others(coordinates: int) -> None:
    rows = torch.randn(20, 2000, generator=generator(0, "tests", "rows"))
    common = torch.randn(2000, generator=generator(0, "tests", "common"))
    rows[[1, 6, 13, 19]] = 0.6 * rows[[1, 6, 13, 19]] + 0.8 * common
    assert rows.norm(dim=1).max() < 1.1 * rows.norm(dim=1).min()
    assert kept(rows, f=4, coordinates=coordinates) == [
        i for i in range(20) if i not in {1, 6, 13, 19}
    ]


@pytest.mark.parametrize(
    ("f", "factor", "count"),
    [(0, 1.0, 10), (3, 1.0, 7), (3, 1.5, 6), (3, 0.5, 9), (None, 1.0, 7), (50, 1.0, 1)],
)
def test_leaves_out_as_many_as_assumed_rounded_down(
    f: int | None, factor: float, count: int
) -> None:
    assert (
        len(kept(torch.randn(10, 30, generator=generator(0, "tests", "rows")), f=f, factor=factor))
        == count
    )


def test_what_is_bad_in_one_repetition_is_left_out() -> None:
    rows = torch.zeros(8, 2)
    rows[2, 0] = rows[5, 1] = 9.0  # with one coordinate at a time, either one or the other shows
    assert kept(rows, f=1, coordinates=1, repetitions=20) == [0, 1, 3, 4, 6, 7]


def test_rows_that_are_never_good_together_do_not_empty_the_round() -> None:
    # good for two of the three coordinates
    assert kept(torch.eye(3), f=2, coordinates=1, repetitions=60) == [0]


def test_each_round_looks_at_other_coordinates() -> None:
    rows = torch.randn(6, 500, generator=generator(0, "tests", "rows"))
    assert len({tuple(kept(rows, number, f=2, coordinates=3)) for number in range(10)}) > 1


def test_ties_go_to_the_smaller_client() -> None:
    assert kept(torch.tensor([[1.3, 0.1], [0.2, 0.7]]), f=1) == [0]
    assert kept(torch.full((4, 3), 0.1), f=1) == [0, 1, 2]
