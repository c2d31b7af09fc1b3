from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.fedcpa import _trust, fedcpa
from backstop.platform.contract import ServerView, Slot, Updates
from backstop.platform.laws.defenses import aggregate
from backstop.platform.seeds import generator
from tests.arena import figures
from tests.references import fedcpa as twin
from tests.views import server_view, uneven


def noise(n: int, d: int, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", name))


def view(params: Tensor, round: int = 0, **changes: Any) -> ServerView:  # noqa: A002
    return replace(server_view(len(params), round), params=params, **changes)


def weighed(rows: Tensor, params: Tensor, share: float = 0.1, **changes: Any) -> Updates:
    """What the first round makes of rows."""
    return fedcpa(share=share).apply(uneven(rows), None, view(params, **changes))[0]


@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 50), (2, 50), (9, 300), (12, 2000)])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5])
def test_two_rounds_agree_with_the_reference(n: int, d: int, share: float) -> None:
    defense, params = fedcpa(share=share), noise(1, d, "params")[0]
    last: Tensor | None = None
    for number in range(2):
        rows = noise(n, d, f"rows {number}") + 0.5 * noise(1, d, "common")[0]
        rows[n // 2] = rows[0]
        rows[-1] = 0.0
        before = None if last is None else last.double().numpy()
        after, last = defense.apply(uneven(rows), last, view(params, number))
        wanted = twin.fedcpa(
            rows.double().numpy(), np.ones(n), share, params.double().numpy(), before
        )
        np.testing.assert_allclose(aggregate(after).numpy(), wanted, rtol=1e-4, atol=1e-6)
        assert last is not None and torch.equal(last, params)
        params = params + rows.mean(0)


def test_who_moves_other_weights_than_all_others_loses_its_weight() -> None:
    common, params = noise(1, 400, "common")[0], noise(1, 400, "params")[0]
    rows = common + 0.1 * noise(8, 400)
    rows[5] = noise(1, 400, "other")[0]
    after = weighed(rows, params)
    assert after.weight[5] == 0
    assert after.weight.count_nonzero() >= 5
    assert after.weight[after.weight > 0].unique().numel() == 1  # sample counts do not matter


def test_a_longer_step_of_the_same_direction_counts_as_before() -> None:
    common, params = noise(1, 400, "common")[0], noise(1, 400, "params")[0]
    rows = 1e-4 * (common + 0.1 * noise(8, 400))
    longer = rows.clone()
    longer[3] *= 10
    defense, last = fedcpa(share=0.1), params - 1e-4 * common
    one, other = (defense.apply(uneven(each), last, view(params, 1))[0] for each in (rows, longer))
    assert one.weight.tolist() == other.weight.tolist()
    torch.testing.assert_close(other.rows[3], 10 * one.rows[3], rtol=0.02, atol=1e-6)


def test_biases_have_no_importance() -> None:
    layout = (Slot("weight", 0, (10, 10)), Slot("bias", 100, (10,)))
    rows, params = noise(6, 110), noise(1, 110, "params")[0]
    moved = rows.clone()
    moved[2, 100:] = 50.0
    one, other = (weighed(each, params, layout=layout) for each in (rows, moved))
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.rows[:, :100], other.rows[:, :100])
    assert not torch.equal(
        weighed(rows, params).rows[:, :100], weighed(moved, params).rows[:, :100]
    )


def test_trust_is_a_logit_between_none_and_all() -> None:
    found = _trust(torch.tensor([0.0, 0.5, 1.0, 0.3]).double())
    assert found[:3].tolist() == [0.0, 0.5, 1.0]
    assert found[3].item() == 0.0  # ln(0.3 / 0.7) + 0.5 < 0
    assert _trust(torch.ones(3).double()).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("stage", "defense"),
    [
        ("", "fedcpa(share=0.1)"),
        ("+model_replacement(strength=3)", "fedcpa(share=0.1)"),
        ("+neurotoxin", "fedcpa"),
    ],
)
def test_it_keeps_out_the_backdoor_that_fedavg_takes_in(stage: str, defense: str) -> None:
    """One weight in a hundred is few in a model of 4,736: one in ten tells more."""
    attack = f"badnets(share=0.2){stage}"
    undefended, defended = figures(attack), figures(attack, defense=defense)
    assert undefended["final/attack_success_rate"] > 0.7
    assert defended["final/attack_success_rate"] < 0.15
    assert defended["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.03


def test_noise_is_left_out_but_a_flipped_sign_is_not_seen() -> None:
    """Importance has no sign: who sends the opposite of an honest update looks honest."""
    noisy, flipped = (figures(attack, defense="fedcpa") for attack in ("gaussian", "sign_flip"))
    assert noisy["final/clean_accuracy"] > figures("gaussian")["final/clean_accuracy"] + 0.05
    assert noisy["final/true_positive_rate"] == 1.0
    assert flipped["final/true_positive_rate"] < 0.5
    assert flipped["final/clean_accuracy"] < 0.5
