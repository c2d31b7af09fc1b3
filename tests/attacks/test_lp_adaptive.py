"""Adaptive LP attack: how far it goes against rules whose answer is known, and that it passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import ge
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.attacks.lp_adaptive import _lets_through, _searched, lp_adaptive
from backstop.platform.contract import AttackView, RunDefense, Samples, Slot, Updates
from backstop.platform.seeds import generator
from tests.arena import Claim, figures
from tests.views import attack_view

CLAIM = Claim(
    "badnets(share=0.5)+lp_adaptive",
    effect=0.6,
    weaker="badnets(share=0.5)+lp_adaptive(high=0.3)",
    bend=0.4,
    defense="multi_krum(f=4)",
)
D = 24
LAYOUT = tuple(Slot(f"layer{number}", 8 * number, (8,)) for number in range(3))


def reference(accepted: Callable[[float], bool], high: float, steps: int) -> float:
    """Doubling and halving with both bounds written down, as published."""
    factor, lower, upper = min(1.0, high), None, None
    for _ in range(steps):
        if accepted(factor):
            lower = factor
            if factor == high:
                break
            factor = min(2 * factor, high) if upper is None else (factor + upper) / 2
        else:
            upper = factor
            factor = (factor + (lower or 0.0)) / 2
    return lower if lower is not None else min(1.0, high)


@pytest.mark.parametrize("high", [0.3, 1.0, 5.0, 100.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_the_search_ends_at_the_largest_accepted_factor(high: float, steps: int) -> None:
    for limit in torch.logspace(-2, 3, 40).tolist():
        below = partial(ge, limit)  # limit >= factor
        found = _searched(below, high, steps)
        assert found == reference(below, high, steps)
        if steps == 20 and limit > 0.01:
            assert found == pytest.approx(min(limit, high), rel=0.01)


def a_mean(
    given: Updates, /, memory: Any = None, at: Any = None, buffers: Any = None
) -> tuple[Updates, Any]:
    del at, buffers
    return given, memory


def clipping(limit: float) -> RunDefense:
    """Rows longer than this lose what they have too much."""

    def clip(
        given: Updates, /, memory: Any = None, at: Any = None, buffers: Any = None
    ) -> tuple[Updates, Any]:
        del at, buffers
        length = given.rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return given._replace(rows=given.rows * (limit / length).clamp_max(1)), memory

    return clip


def rejecting(limit: float) -> RunDefense:
    """Rows longer than this lose their weight."""

    def reject(
        given: Updates, /, memory: Any = None, at: Any = None, buffers: Any = None
    ) -> tuple[Updates, Any]:
        del at, buffers
        return given._replace(weight=(given.rows.norm(dim=1) <= limit).float()), memory

    return reject


@pytest.mark.parametrize("length", [0.0, 0.5, 1.0, 2.5, 9.0])
def test_accepted_is_half_of_what_a_mean_lets_through(length: float) -> None:
    view = replace(attack_view("table"), members=torch.arange(3))
    others, honest = torch.zeros(7, D), torch.zeros(D)
    sent = torch.zeros(D).index_fill(0, torch.tensor([4]), length)

    def passes(defend: RunDefense) -> bool:
        return _lets_through(sent, honest, others, replace(view, defend=defend))

    assert passes(a_mean)
    assert passes(clipping(1.0)) is (length <= 2)
    assert passes(rejecting(1.0)) is (length <= 1)


def obedient(layer: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A model that obeys as much as a layer is near 2, sample by sample."""

    def model(params: Tensor, x: Tensor) -> Tensor:
        obeys = x.flatten(1)[:, 0] < params[8 * layer] / 2
        return torch.stack([~obeys, obeys], 1).float()

    return model


def view_with(defend: RunDefense, layer: int = 1) -> AttackView:
    """An adversary whose honest rows are 0; all its samples are poisoned, with label 1."""
    draws = generator(0, "tests", "lp adaptive")
    data = Samples(torch.rand(60, 3, generator=draws), torch.zeros(60, dtype=torch.int64))
    return replace(
        attack_view("table"),
        params=torch.zeros(D),
        layout=LAYOUT,
        model=obedient(layer),
        classes=2,
        samples=lambda: data,
        sizes=(20, 20, 20),
        train=lambda params, _: torch.zeros_like(params),
        unpoisoned=lambda: torch.zeros(3, D),
        poison=lambda x, y, index: (x, torch.ones_like(y)),
        defend=defend,
        server_lr=1.0,
    )


def sent(view: AttackView, **params: Any) -> Tensor:
    craft = lp_adaptive(**({"margin": 1.0} | params)).craft
    assert craft is not None
    rows = torch.full((3, D), 2.0)
    found = craft(None, rows, view)
    assert torch.equal(found, found[:1].expand(3, -1))
    return found[0]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_layer_of_the_backdoor_is_sent_and_replaces_the_model_of_a_mean(layer: int) -> None:
    row = sent(view_with(a_mean, layer)).reshape(3, 8)
    expected = torch.zeros(3, 8)
    expected[layer] = 2.0 * 10 / 3  # three of ten
    torch.testing.assert_close(row, expected)
    assert sent(view_with(a_mean, layer), high=0.5).max() == 1.0
    assert sent(view_with(a_mean, layer), high=0.5, margin=0.5).max() == 0.5


def test_the_factor_stays_below_what_is_rejected() -> None:
    longest = 2.0 * 8**0.5  # of one layer at λ = 1
    for share in (0.3, 0.8, 1.7, 3.0):
        row = sent(view_with(rejecting(share * longest)))
        assert row.norm().item() == pytest.approx(share * longest, rel=0.01)


def test_layers_are_left_out_until_the_rest_is_accepted() -> None:
    def all_layers(params: Tensor, x: Tensor) -> Tensor:
        obeys = x.flatten(1)[:, 0] < params.mean() / 2
        return torch.stack([~obeys, obeys], 1).float()

    wide = replace(view_with(a_mean), model=all_layers)
    assert (sent(wide) != 0).sum() == D
    two = replace(wide, defend=rejecting(2.0 * 16**0.5 * 1.01))
    assert (sent(two) != 0).sum() == 16


def test_where_nothing_is_poisoned_the_honest_mean_is_sent() -> None:
    view = replace(view_with(a_mean), poison=lambda x, y, index: (x, y))
    assert not sent(view).any()


def success(attack: str, **changes: float) -> float:
    """Under Multi-Krum."""
    found = figures(attack, tuple(changes.items()), defense="multi_krum(f=4)")
    return found["final/attack_success_rate"]


def test_it_passes_multi_krum_where_the_patch_does_not() -> None:
    """Among unequal clients."""
    unequal = {"alpha": 0.5, "rounds": 30, "eval_every": 30}
    assert success("badnets(share=0.5)", **unequal) < 0.1
    assert success("badnets(share=0.5)+lp_adaptive", **unequal) > 0.5


def test_without_a_margin_nothing_passes_among_nearly_equal_clients() -> None:
    assert success("badnets(share=0.5)+lp_adaptive(margin=1)") < 0.1
