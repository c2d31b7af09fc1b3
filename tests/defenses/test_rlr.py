from __future__ import annotations

import pytest
import torch

from backstop.defenses.median import median
from backstop.defenses.rlr import rlr
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator
from backstop.platform.training.defense_chain import chain
from tests.views import server_view


def votes(up: int, down: int, still: int = 0) -> Updates:
    rows = torch.cat([torch.full((up, 1), 2.0), torch.full((down, 1), -1.0), torch.zeros(still, 1)])
    return Updates(rows, torch.ones(len(rows)), torch.arange(len(rows)))


@pytest.mark.parametrize(
    ("up", "down", "still", "threshold", "kept"),
    [
        (14, 6, 0, 0.4, True),  # |14 - 6| / 20 is 0.4 exactly
        (13, 7, 0, 0.4, False),
        (6, 14, 0, 0.4, True),
        (8, 0, 12, 0.4, True),  # a zero votes for neither side
        (7, 0, 13, 0.4, False),
        (0, 0, 20, 0.4, False),
        (7, 0, 93, 0.07, True),  # 0.07 * 100 is 7.000000000000001 in floating point
        (8, 0, 25, 8 / 33, True),  # 8 of 33, which no decimal says
        (7, 0, 26, 8 / 33, False),
        (1, 1, 0, 0.0, True),
        (1, 0, 0, 1.0, True),
        (2, 1, 0, 0.4, False),
    ],
)
def test_the_direction_is_kept_from_the_threshold_on(
    up: int, down: int, still: int, threshold: float, kept: bool
) -> None:
    given = votes(up, down, still)
    after = rlr(threshold=threshold).apply(given, None, server_view(1))[0]
    assert torch.equal(after.rows, given.rows if kept else -given.rows)
    assert torch.equal(after.weight, given.weight) and torch.equal(after.client, given.client)


def test_a_minority_that_writes_where_nobody_else_does_is_turned_around() -> None:
    rows = torch.randn(20, 100, generator=generator(0, "tests", "rows")) * 0.1
    rows[:, :50] += 1.0
    rows[:4, 90:] = 5.0  # honest rows have random signs there
    rows[4:, 90:] = torch.tensor([0.01, -0.01]).repeat(8).unsqueeze(1)
    after = (
        rlr()
        .apply(Updates(rows, torch.ones(20), torch.arange(20)), None, server_view(100))[0]
        .rows.mean(0)
    )
    assert (after[:50] > 0.8).all() and (after[90:] < -0.9).all()


@pytest.mark.parametrize("n", [9, 10])
def test_before_the_median_it_negates_the_median(n: int) -> None:
    given = Updates(
        torch.randn(n, 40, generator=generator(0, "tests", "rows")), torch.ones(n), torch.arange(n)
    )
    view = server_view(40)
    plain, after = (
        stage.apply(given, stage.init(view), view)[0].rows
        for stage in (median(), chain(rlr(), median()))
    )
    enough = given.rows.sign().sum(0).abs() >= 0.4 * n
    assert 0 < enough.sum() < 40
    assert torch.equal(after[0], torch.where(enough, plain[0], -plain[0]))
