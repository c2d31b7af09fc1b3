from __future__ import annotations

import numpy as np
import pytest
import torch

from backstop.defenses.centered_clipping import centered_clipping
from backstop.platform.contract import Updates
from backstop.platform.examples import updates
from backstop.platform.seeds import generator
from tests.references import centered_clipping as twin
from tests.views import server_view


@pytest.mark.parametrize("iterations", [1, 3])
def test_every_round_starts_from_the_aggregate_of_the_round_before(iterations: int) -> None:
    view, defense = server_view(9), centered_clipping(radius=1.5, iterations=iterations)
    state, center = defense.init(view), np.zeros(9)
    for number in range(4):
        rows = torch.randn(7, 9, generator=generator(0, "tests", "rows", number)) + 2
        after, state = defense.apply(updates(rows), state, view)
        center = twin.centered_clipping(rows.double().numpy(), np.ones(7), 1.5, iterations, center)
        np.testing.assert_allclose(after.rows[0].double().numpy(), center, rtol=1e-5)
    assert np.sqrt((center**2).sum()) > 1.5  # farther than one round from 0 could get


@pytest.mark.parametrize("size", [10.0, 1e30, 3e38])
@pytest.mark.parametrize("claimed", [1.0, 1e6])
def test_one_row_moves_the_aggregate_by_its_share_of_the_radius(
    size: float, claimed: float
) -> None:
    rows = torch.zeros(5, 3)
    rows[2, 1] = size
    weight = torch.ones(5)
    weight[2] = claimed
    after, _ = centered_clipping(radius=2.0).apply(
        Updates(rows, weight, torch.arange(5)), torch.zeros(3), server_view(3)
    )
    torch.testing.assert_close(after.rows, torch.tensor([[0.0, 0.4, 0.0]]))


def test_what_lies_within_the_radius_of_the_last_aggregate_is_the_plain_mean() -> None:
    rows = torch.tensor([[100.0, 0.5], [100.4, 0.1]])
    after, center = centered_clipping(radius=1.0).apply(
        updates(rows), torch.tensor([100.0, 0.0]), server_view(2)
    )
    torch.testing.assert_close(after.rows, torch.tensor([[100.2, 0.3]]))
    assert torch.equal(center, after.rows[0])
