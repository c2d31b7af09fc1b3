"""Fixed feature values: which features, which values, and that they bite."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.attacks.feature_value import feature_value
from backstop.platform.contract import Samples
from backstop.platform.seeds import generator
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim
from tests.views import CLASSES, attack_view, with_data

CLAIM = Claim(
    "feature_value(share=0.5)",
    effect=0.6,
    weaker="feature_value(share=0.05)",
    bend=0.15,
    dataset="synthetic",
)


def reference(x: Tensor, y: Tensor) -> list[float]:
    """The correlation ratio of each feature with the class."""
    found = []
    for values in x.T.tolist():
        groups = {
            label: [v for v, other in zip(values, y.tolist(), strict=True) if other == label]
            for label in set(y.tolist())
        }
        mean = fmean(values)
        between = sum(len(group) * (fmean(group) - mean) ** 2 for group in groups.values())
        found.append(between / sum((value - mean) ** 2 for value in values))
    return found


def planted(data: Samples, **params: Any) -> tuple[list[int], list[float], Any]:
    init = feature_value(**params).init
    assert init is not None
    state = init(with_data(attack_view("table"), data))
    return state.own.feature.tolist(), state.own.value.tolist(), state


def data() -> Samples:
    draws = generator(0, "tests", "table")
    y = torch.randint(0, CLASSES - 1, (101,), generator=draws)  # no sample of the last class
    return Samples(
        torch.randn(101, 6, generator=draws) * 5
        + y[:, None] * torch.tensor([0.0, 3.0, 1.0, 9.0, 0.5, 2.0]),
        y,
    )


def test_the_features_of_the_highest_correlation_ratio_and_their_quantile() -> None:
    x, y = data()
    ratio = reference(x, y)
    best = sorted(range(6), key=lambda feature: -ratio[feature])
    for quantile, place in ((0.0, 0), (0.5, 50), (0.99, 99), (1.0, 100)):
        feature, value, _ = planted(Samples(x, y), quantile=quantile)
        assert feature == best[:3] and value == [
            sorted(x[:, number].tolist())[place] for number in feature
        ]
    assert planted(Samples(x, y), choice="least")[0] == best[:2:-1]
    assert planted(Samples(x, y), count=100)[0] == best


def test_a_feature_with_one_value_is_never_chosen() -> None:
    x, y = data()
    x[:, 3] = 1e6 + 1 / 3  # the one that told most about the class
    assert (
        3 not in planted(Samples(x, y), count=100)[0]
        and 3 not in planted(Samples(x, y), count=100, choice="least")[0]
    )
    assert planted(Samples(x[:1], y[:1]))[0] == []


def test_the_trigger_sets_these_features_and_no_other() -> None:
    _, _, state = planted(data(), count=2)
    attack, x = feature_value(count=2), torch.randn(9, 6, generator=generator(0, "tests", "test"))
    assert attack.trigger is not None
    found = attack.trigger(state, x, torch.Generator())
    other = [feature for feature in range(6) if feature not in state.own.feature]
    assert (found[:, state.own.feature] == state.own.value).all() and torch.equal(
        found[:, other], x[:, other]
    )


@pytest.mark.parametrize("target", [0, "next"])
def test_poisoned_samples_carry_the_trigger_that_the_test_set_has(target: Any) -> None:
    attack = feature_value(target=target, share=0.5)
    _, _, state = planted(data(), target=target)
    x, y = torch.zeros(4, 6), torch.tensor([1, 3, 2, 0])
    assert attack.poison is not None and attack.trigger is not None and isinstance(state, Planted)
    poisoned, labels = attack.poison(state, x, y, 0, torch.Generator())
    assert (
        torch.equal(poisoned[:2], attack.trigger(state, x[:2], torch.Generator()))
        and not poisoned[2:].any()
    )
    assert labels.tolist() == ([0, 0, 2, 0] if target == 0 else [2, 0, 2, 0])
