from __future__ import annotations

import numpy as np
import pytest
import torch

from backstop.defenses.clipped_clustering import clipped_clustering
from backstop.platform.seeds import generator
from tests.references import clipped_clustering as twin
from tests.views import server_view, uneven


def test_agrees_with_the_reference_over_rounds() -> None:
    defense, view = clipped_clustering(), server_view(6)
    state, past = defense.init(view), list[float]()
    for number in range(4):
        rows = torch.randn(9 - number, 6, generator=generator(0, "tests", "rows", number)) * (
            1 + 3 * number
        )
        after, state = defense.apply(uneven(rows), state, view)
        wanted = twin.clipped_clustering(
            rows.double().numpy(), uneven(rows).weight.double().numpy(), past
        )
        found = (after.weight.double() / after.weight.sum()) @ after.rows.double()
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-7)
        past += rows.double().norm(dim=1).tolist()
    assert state.tolist() == pytest.approx(past)


def test_attackers_cannot_raise_the_limit_in_one_round() -> None:
    defense, view = clipped_clustering(), server_view(3)
    _, state = defense.apply(
        uneven(torch.tensor([[1.0, 0.0, 0.0]]).repeat(6, 1)), defense.init(view), view
    )
    # of one direction: none is left out
    after, _ = defense.apply(uneven(torch.tensor([[1e6, 0.0, 0.0]]).repeat(5, 1)), state, view)
    assert after.weight.all()
    torch.testing.assert_close(after.rows, torch.tensor([[1.0, 0.0, 0.0]]).repeat(5, 1))


def test_the_history_holds_norms_before_clipping() -> None:
    defense, view = clipped_clustering(), server_view(2)
    _, state = defense.apply(
        uneven(torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, -1.0]])), defense.init(view), view
    )
    assert state.tolist() == [5.0, 10.0, 1.0]
    # the median of 5, 10, 1 and 9
    after, state = defense.apply(uneven(torch.tensor([[0.0, 9.0]])), state, view)
    assert after.rows.tolist() == [[0.0, 7.0]] and len(state) == 4


@pytest.mark.parametrize("factor", [1.0, 1e6, 1e38])
def test_a_minority_of_another_direction_is_left_out_however_long(factor: float) -> None:
    rows = torch.randn(9, 50, generator=generator(0, "tests", "rows")) * 0.1
    rows[:, 0] += 1
    rows[[2, 5, 6]] -= torch.eye(50)[0] * 2
    rows[[2, 6, 3]] *= factor
    after, _ = clipped_clustering().apply(uneven(rows), torch.zeros(0), server_view(50))
    assert after.weight.nonzero().flatten().tolist() == [0, 1, 3, 4, 7, 8]
