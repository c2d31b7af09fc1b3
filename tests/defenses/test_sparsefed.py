from __future__ import annotations

import numpy as np
import pytest
import torch

from backstop.defenses.norm_clip import norm_clip
from backstop.defenses.sparsefed import sparsefed
from backstop.platform.seeds import generator
from tests.references import sparsefed as twin
from tests.views import server_view, uneven


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_what_is_held_back_goes_into_later_rounds(share: float) -> None:
    view, defense = server_view(20), sparsefed(norm=2.0, share=share)
    state, memory, means, sent = defense.init(view), np.zeros(20), torch.zeros(20), torch.zeros(20)
    for number in range(5):
        given = uneven(torch.randn(6, 20, generator=generator(0, "tests", "rows", number)))
        wanted = twin.sparsefed(
            given.rows.double().numpy(), given.weight.double().numpy(), 2.0, share, "equal", memory
        )
        memory += (
            twin.sparsefed(
                given.rows.double().numpy(), given.weight.double().numpy(), 2.0, 1.0, "equal"
            )
            - wanted
        )
        after, state = defense.apply(given, state, view)
        np.testing.assert_allclose(after.rows[0].double().numpy(), wanted, rtol=1e-4, atol=1e-6)
        clipped = norm_clip(norm=2.0).apply(given, None, view)[0]
        means += clipped.weight @ clipped.rows / clipped.weight.sum()
        sent += after.rows[0]
    torch.testing.assert_close(sent + state, means)  # nothing is lost
    assert state.any() == (share < 1)


def test_a_coordinate_that_is_never_the_largest_gets_its_turn() -> None:
    view, defense = server_view(2), sparsefed(share=0.5)
    state, turns = defense.init(view), []
    for _ in range(8):
        after, state = defense.apply(uneven(torch.tensor([[0.3, 0.1]])), state, view)
        turns.append(after.rows[0].nonzero().item())
    # 0.1 has gathered to more than 0.3 in every fourth round
    assert turns[0] == 0 and turns.count(1) == 2


@pytest.mark.parametrize(("share", "first"), [(0.01, 1), (0.3, 3), (0.31, 4), (0.7, 7), (1.0, 10)])
def test_of_equal_coordinates_exactly_the_first_k_go_through(share: float, first: int) -> None:
    rows = torch.tensor([[0.1, -0.1] * 5])
    after, memory = sparsefed(share=share).apply(uneven(rows), torch.zeros(10), server_view(10))
    assert torch.equal(after.rows[0], rows[0] * (torch.arange(10) < first))
    assert torch.equal(memory, rows[0] * (torch.arange(10) >= first))
