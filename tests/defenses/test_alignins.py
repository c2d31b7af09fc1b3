from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.alignins import alignins
from backstop.platform.contract import Updates
from backstop.platform.laws.defenses import aggregate
from backstop.platform.seeds import generator
from tests.arena import figures
from tests.references import alignins as twin
from tests.views import server_view, uneven


def noise(n: int, d: int, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", name))


def inspected(rows: Tensor, params: Tensor | None = None, **settings: float) -> Updates:
    view = server_view(rows.shape[1])
    if params is not None:
        view = replace(view, params=params)
    return alignins(**settings).apply(uneven(rows), None, view)[0]


def kept(after: Updates) -> list[int]:
    return after.weight.nonzero().flatten().tolist()


@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 50), (2, 50), (9, 300), (20, 5000)])
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_agrees_with_the_reference(n: int, d: int, share: float) -> None:
    rows, params = noise(n, d) + 0.2, noise(1, d, "params")[0]
    rows[n // 2] = rows[0]  # a tie
    rows[-1] = 0.0
    after = inspected(rows, params, share=share)
    wanted = twin.alignins(
        rows.double().numpy(),
        uneven(rows).weight.double().numpy(),
        share,
        1.0,
        1.0,
        params.double().numpy(),
    )
    np.testing.assert_allclose(aggregate(after).numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_signs_of_the_largest_coordinates_tell_what_angles_do_not() -> None:
    rows = torch.ones(10, 100)
    rows[3, :10] = -2.0  # orthogonal to the global model
    params = torch.cat([torch.zeros(10), torch.ones(90)])
    assert 3 not in kept(inspected(rows, params, share=0.1, direction_radius=1e3))
    assert 3 in kept(inspected(rows, params, share=0.1, direction_radius=1e3, sign_radius=1e3))


def test_the_angle_to_the_global_model_tells_what_signs_do_not() -> None:
    rows = torch.ones(10, 100)
    rows[3, :10] = 30.0
    params = torch.cat([torch.ones(10), torch.zeros(90)])
    assert kept(inspected(rows, params)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert kept(inspected(rows, params, direction_radius=1e3)) == list(range(10))


def test_kept_rows_are_clipped_to_their_median_norm_not_to_that_of_all() -> None:
    rows = torch.ones(5, 4) * torch.tensor([[1.0], [2.0], [3.0], [9.0], [9.0]])
    rows[3:] *= -1.0  # left out by their signs
    after = inspected(rows)
    assert kept(after) == [0, 1, 2]
    assert after.rows[:3, 0].tolist() == [1.0, 2.0, 2.0]


def test_where_nobody_passes_nothing_moves() -> None:
    after = inspected(torch.tensor([[1.0, 2.0], [-3.0, 1.0]]), torch.tensor([1.0, 0.0]))
    assert not after.rows.any()
    assert after.weight.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("stage", ["", "+neurotoxin"])
def test_it_keeps_out_the_backdoor_that_fedavg_takes_in(stage: str) -> None:
    attack = f"badnets(share=0.2){stage}"
    undefended, defended = figures(attack), figures(attack, defense="alignins")
    assert undefended["final/attack_success_rate"] > 0.7
    assert defended["final/attack_success_rate"] < 0.05
    assert defended["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.03


def test_honest_rows_go_with_the_attackers() -> None:
    """One standard deviation is not far: without attackers, too, rows are left out."""
    honest = noise(20, 5000) + 0.2
    assert 4 <= len(kept(inspected(honest))) <= 16
