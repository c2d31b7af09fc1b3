"""SoDa: its two terms, the reference that they are about, and that it gets through Multi-Krum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.attacks.soda import _Reference, soda
from backstop.platform.seeds import generator
from tests.arena import Claim, figures, first_rows
from tests.views import attack_view

CLAIM = Claim("badnets(share=0.3)+soda", effect=0.2, weaker="badnets(share=0.3)+soda", bend=0.0)
UNEQUAL = (("alpha", 0.5), ("rounds", 30), ("eval_every", 30))


def term(own: _Reference, delta: Tensor, **weights: float) -> float:
    objective = soda(**weights).objective
    assert objective is not None
    none = torch.zeros(0)
    return objective(own, delta, none, none, none).item()


def reference(
    model: Tensor, honest: Tensor, delta: Tensor, distance: float, cosine: float
) -> float:
    """Both terms from the models themselves."""
    here, there = (model + delta).double().numpy(), (model + honest).double().numpy()
    away = float(np.sqrt(((here - there) ** 2).sum()))
    length = float(np.sqrt((here**2).sum()) * np.sqrt((there**2).sum()))
    likeness = float((here * there).sum()) / length if length else 0.0
    return distance * away + cosine * (1 - likeness)


@pytest.mark.parametrize(("distance", "cosine"), [(0.1, 100.0), (2.0, 0.0), (0.0, 5.0)])
@pytest.mark.parametrize("case", ["random", "tied", "zero update", "zero model", "single"])
def test_the_terms_are_those_of_the_data_sheet(case: str, distance: float, cosine: float) -> None:
    draws = generator(0, "tests", "soda", case)
    d = 1 if case == "single" else 30
    for _ in range(10):
        model, honest, delta = torch.randn(3, d, generator=draws)
        if case == "tied":
            delta = honest
        if case == "zero update":
            delta = torch.zeros(d)
        if case == "zero model":
            model = torch.zeros(d)
        found = term(_Reference(model, honest), delta, distance=distance, cosine=cosine)
        expected = reference(model, honest, delta, distance, cosine)
        assert found == pytest.approx(expected, rel=1e-4, abs=2e-4)


def test_at_the_reference_itself_there_is_a_gradient_that_is_finite() -> None:
    honest = torch.ones(4)
    delta = honest.clone().requires_grad_()
    objective = soda().objective
    assert objective is not None
    none = torch.zeros(0)
    value = objective(_Reference(torch.ones(4), honest), delta, none, none, none)
    (grad,) = torch.autograd.grad(value, delta)
    assert grad.isfinite().all() and grad.abs().max() < 1e-4


def test_the_reference_is_what_this_rounds_members_would_have_sent() -> None:
    view, attack = attack_view("table"), soda()
    assert attack.init is not None and attack.plan is not None
    start = attack.init(view)
    state = attack.plan(start, view)
    assert torch.equal(state.honest, view.unpoisoned().mean(0)) and state.honest.any()
    assert torch.equal(state.model, view.params)
    nobody = replace(view, members=view.members[:0])
    assert attack.plan(start, nobody) is start


def test_heavier_terms_leave_rows_nearer_to_honest_ones() -> None:
    _, honest = first_rows("badnets(share=0.3)", dormant=True)
    away = []
    for stage in ("", "+soda(cosine=0)", "+soda"):
        _, rows = first_rows(f"badnets(share=0.3){stage}")
        away.append((rows - honest.mean(0)).norm(dim=1).mean().item())
    assert away == sorted(away, reverse=True) and away[-1] < 0.9 * away[0]


def test_it_gets_through_multi_krum_more_often_than_the_patch_alone() -> None:
    plain, near = (
        figures(attack, UNEQUAL, defense="multi_krum(f=4)")["final/attack_success_rate"]
        for attack in ("badnets(share=0.3)", "badnets(share=0.3)+soda")
    )
    assert plain < 0.6 and near > plain + 0.15
