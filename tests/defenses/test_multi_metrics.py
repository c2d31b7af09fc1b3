from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.multi_metrics import multi_metrics
from backstop.platform.contract import Updates
from backstop.platform.laws.defenses import aggregate
from backstop.platform.seeds import generator
from tests.arena import figures
from tests.references import multi_metrics as twin
from tests.views import server_view, uneven


def noise(n: int, d: int, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", name))


def nearest(rows: Tensor, params: Tensor | None = None, **settings: Any) -> Updates:
    view = server_view(rows.shape[1])
    if params is not None:
        view = replace(view, params=params)
    return multi_metrics(**settings).apply(uneven(rows), None, view)[0]


def kept(after: Updates) -> list[int]:
    return after.weight.nonzero().flatten().tolist()


@pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 50), (3, 7), (20, 1), (12, 9000)])
@pytest.mark.parametrize("compared", ["models", "updates"])
def test_agrees_with_the_reference(n: int, d: int, compared: str) -> None:
    rows, params = noise(n, d), noise(1, d, "params")[0]
    rows[0] *= 30
    rows[n // 2] = 0.0
    after = nearest(rows, params, compared=compared)
    wanted = twin.multi_metrics(
        rows.double().numpy(),
        uneven(rows).weight.double().numpy(),
        0.3,
        compared,
        params.double().numpy(),
    )
    np.testing.assert_allclose(aggregate(after).numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_as_many_rows_are_kept_as_the_share_says_and_one_at_least(share: float) -> None:
    assert len(kept(nearest(noise(10, 50), share=share))) == max(int(share * 10), 1)


def test_equal_rows_are_ties_that_go_to_the_first_clients() -> None:
    assert kept(nearest(torch.ones(10, 5))) == [0, 1, 2]
    assert kept(nearest(torch.zeros(10, 5))) == [0, 1, 2]


@pytest.mark.parametrize("change", ["longer", "turned", "beside"])
def test_one_odd_row_is_not_kept_whatever_is_odd_about_it(change: str) -> None:
    rows = noise(10, 500) + 0.5
    if change == "longer":
        rows[4] *= 3
    elif change == "turned":
        rows[4] *= -1
    else:
        rows[4, :20] += 10
    assert 4 not in kept(nearest(rows))


@pytest.mark.parametrize("stage", ["", "+neurotoxin"])
def test_it_keeps_out_the_backdoor_that_fedavg_takes_in(stage: str) -> None:
    attack = f"badnets(share=0.2){stage}"
    undefended, defended = figures(attack), figures(attack, defense="multi_metrics")
    assert undefended["final/attack_success_rate"] > 0.7
    assert defended["final/attack_success_rate"] < 0.1
    assert defended["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.04


def test_boosted_attackers_stretch_the_covariance_that_judges_them() -> None:
    """One of ten is left out; two of ten are, for some rounds, among the nearest three."""
    boosted = "badnets(share=0.2)+model_replacement(strength=3)"
    one, two = (
        figures(boosted, (("malicious", share),), defense="multi_metrics") for share in (0.1, 0.2)
    )
    assert figures(boosted, (("malicious", 0.1),))["final/attack_success_rate"] > 0.8
    assert one["final/attack_success_rate"] < 0.05
    assert two["final/attack_success_rate"] > 0.5
