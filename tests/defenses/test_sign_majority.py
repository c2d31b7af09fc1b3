from __future__ import annotations

import pytest
import torch

from backstop.defenses.sign_majority import sign_majority
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator
from tests.views import server_view


def vote(
    rows: torch.Tensor, weight: torch.Tensor | None = None, step: float | None = None
) -> torch.Tensor:
    given = Updates(
        rows, torch.ones(len(rows)) if weight is None else weight, torch.arange(len(rows))
    )
    return sign_majority(step=step).apply(given, None, server_view(rows.shape[1]))[0].rows


def test_the_majority_wins_and_a_tie_stays() -> None:
    rows = torch.tensor(
        [
            [1.0, -1.0, 1.0, 0.0],
            [0.1, -9.0, -5.0, 0.0],
            [-70.0, 0.0, 1.0, 0.0],
            [2.0, 3.0, -1.0, 0.1],
        ]
    )
    assert vote(rows, step=0.5).tolist() == [[0.5, -0.5, 0.0, 0.5]]


@pytest.mark.parametrize("size", [1e2, 1e30, 3e38])
def test_a_minority_changes_neither_a_unanimous_direction_nor_the_step_by_its_size(
    size: float,
) -> None:
    rows = torch.tensor([[3.0, -4.0]]).repeat(10, 1)
    rows[:4] = torch.tensor([-size, size])
    claimed = torch.tensor([1e6] * 4 + [1.0] * 6)
    assert torch.equal(vote(rows, claimed), vote(torch.tensor([[3.0, -4.0]])))


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_a_vote_without_ties_is_as_long_as_the_median_row(n: int) -> None:
    rows = torch.rand(n, 30, generator=generator(0, "tests", "rows")) + 0.1
    rows *= torch.arange(1.0, n + 1).unsqueeze(1)
    assert vote(rows).norm().item() == pytest.approx(
        rows.norm(dim=1).quantile(0.5).item(), rel=1e-5
    )
