"""Adaptive: the factor that it finds against rules whose answer is known, and that it beats fixed
factors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.attacks.adaptive import adaptive
from backstop.platform import plugins
from backstop.platform.contract import Defense, Updates
from backstop.platform.seeds import generator
from tests.arena import Claim, effect
from tests.views import attack_view, server_view

CLAIM = Claim(
    "badnets(share=0.2)+adaptive",
    effect=0.4,
    weaker="badnets(share=0.2)+adaptive(high=1)",
    bend=0.2,
    defense="norm_clip(norm=0.2)",
)
D = 24
DRAWS = generator(0, "tests", "adaptive")
HONEST = 0.1 * torch.randn(16, D, generator=DRAWS)
ROWS = torch.nn.functional.normalize(torch.ones(4, D) + 0.05 * torch.randn(4, D, generator=DRAWS))


def against(name: str, **params: Any) -> Callable[[Tensor], Updates]:
    defense: Defense = plugins.build("defenses", name, params)
    return lambda rows: defense.apply(
        Updates(rows, torch.ones(len(rows)), torch.arange(len(rows))),
        defense.init(server_view(D)),
        server_view(D),
    )[0]


def sent(defend: Callable[[Tensor], Updates], *, server_lr: float = 1.0, **params: Any) -> Tensor:
    """What is sent, without a margin, when honest updates are HONEST and those of the malicious
    clients would be zero.
    """
    craft = adaptive(**({"margin": 1.0} | params)).craft
    assert craft is not None
    trained = iter(HONEST)
    view = replace(
        attack_view("table", malicious=4),
        total=20,
        defend=defend,
        server_lr=server_lr,
        train=lambda vector, data: next(trained),
        unpoisoned=lambda: torch.zeros(4, D),
    )
    return craft(None, ROWS, view)


def factor(found: Tensor) -> float:
    """How many times the malicious mean was sent."""
    return float(found.mean(0).norm() / ROWS.mean(0).norm())


@pytest.mark.parametrize(("server_lr", "wanted"), [(1.0, 5.0), (0.5, 10.0), (2.0, 2.5)])
def test_without_a_defense_it_is_model_replacement(server_lr: float, wanted: float) -> None:
    """Four of twenty rows: a factor n / (m η) replaces the model."""
    assert factor(sent(against("fedavg"), server_lr=server_lr, steps=30)) == pytest.approx(
        wanted, rel=1e-3
    )


def test_the_margin_is_a_share_of_the_best_factor() -> None:
    whole, part = (sent(against("multi_krum", f=4), margin=margin) for margin in (1.0, 0.6))
    torch.testing.assert_close(part, 0.6 * whole)


def test_a_rule_that_rejects_is_kept_just_content() -> None:
    defend = against("multi_krum", f=4)

    def taken(rows: Tensor) -> float:
        return defend(torch.cat([HONEST, rows])).weight[-4:].sum().item()

    found = sent(defend, steps=20)
    assert taken(found) > 0 and taken(found * 3) == 0 and taken(ROWS * 5.0) == 0


@pytest.mark.parametrize(
    ("name", "params"),
    [("norm_clip", {"norm": 0.2}), ("median", {}), ("trimmed_mean", {"trim_fraction": 0.2})],
)
def test_a_rule_that_bounds_what_a_row_does_gives_all_there_is(
    name: str, params: dict[str, float]
) -> None:
    """No factor of either form brings the model further along the poison."""
    defend, aim = against(name, **params), ROWS.mean(0)

    def progress(rows: Tensor) -> float:
        after = defend(torch.cat([HONEST, rows]))
        return (after.weight @ after.rows / after.weight.sum() @ aim).item()

    tried = [
        progress(scale * form)
        for scale in (0.1, 0.3, 1, 3, 10, 30, 100)
        for form in (ROWS, aim.expand_as(ROWS))
    ]
    assert progress(sent(defend)) >= max(tried) - 1e-5


def test_it_beats_fixed_factors_against_a_rule_that_clips() -> None:
    fixed = [
        effect(CLAIM, f"badnets(share=0.2){scaled}")
        for scaled in ("", "+model_replacement(strength=3)")
    ]
    assert effect(CLAIM, CLAIM.attack) > max(fixed) + 0.15
