"""Fine-pruning: sleeping units go and stay gone, accuracy stays, and the backdoor suffers."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backstop.defenses import fine_pruning as plugin
from backstop.platform.contract import Samples, ServerView
from backstop.platform.experiment import Experiment
from backstop.platform.specs.part import to_chain
from backstop.search_spaces.quickstart import BASE
from tests.views import server_view

ATTACKED = BASE.replace(
    attack=to_chain("badnets", "attack"),
    clients=20,
    per_round=10,
    rounds=12,
    eval_every=12,
    root_size=100,
    seed=1,
)


@lru_cache
def trained() -> tuple[Experiment, ServerView]:
    """A finished experiment without a defense, and what its server may know."""
    experiment = Experiment(ATTACKED, Path("unused"), "cpu")
    for _ in range(ATTACKED.rounds):
        experiment.round()
    return experiment, experiment.views.server(experiment.state)


def measured(params: Tensor) -> dict[str, float]:
    experiment, view = trained()
    experiment.state = experiment.state._replace(params=params)
    found = experiment._measure()
    experiment.state = experiment.state._replace(params=view.params)
    return found


def finished(view: ServerView, **params: float) -> Tensor:
    finish = plugin.fine_pruning(**params).finish  # type: ignore[arg-type]
    assert finish
    return finish(None, view)


def columns(params: Tensor, view: ServerView) -> Tensor:
    """The last linear layer's weight (classes, h)."""
    slot = view.head[0]
    return params[slot.start : slot.start + slot.shape[0] * slot.shape[1]].view(slot.shape)


def test_pruning_and_fine_tuning_do_more_than_fine_tuning() -> None:
    view = trained()[1]
    before, after = measured(view.params), measured(finished(view))
    tuned = view.params
    for _ in range(5):
        tuned = tuned + view.train(tuned, view.root)
    assert before["round/attack_success_rate"] > 0.8
    assert after["round/attack_success_rate"] < 0.25
    assert after["round/attack_success_rate"] < measured(tuned)["round/attack_success_rate"] - 0.1
    assert after["round/clean_accuracy"] > before["round/clean_accuracy"] - 0.03


def test_pruned_columns_are_zero_before_and_after_fine_tuning() -> None:
    view = trained()[1]
    pruned, tuned = finished(view, epochs=0), finished(view, epochs=3)
    gone = (columns(pruned, view) == 0).all(0)
    activity = view.features(view.params, view.root.x).abs().mean(0)
    assert 5 < gone.sum() < len(gone)
    assert activity[gone].max() <= activity[~gone].min()
    assert torch.equal((columns(tuned, view) == 0).all(0), gone)
    others = torch.ones_like(view.params)
    columns(others, view)[:, gone] = 0.0
    assert torch.equal(pruned, view.params * others)
    assert not torch.equal(tuned, pruned)


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.2])
def test_pruning_costs_no_more_than_the_tolerance_on_the_root_set(tolerance: float) -> None:
    view = trained()[1]
    pruned = finished(view, tolerance=tolerance, epochs=0)
    before, after = (
        (view.model(params, view.root.x).argmax(1) == view.root.y).sum().item()
        for params in (view.params, pruned)
    )
    assert after >= before - tolerance * 100
    assert not torch.equal(pruned, view.params)


def test_by_hand() -> None:
    units = torch.tensor([[9.0, 0.0, 1.0, -2.0], [0.0, 8.0, 1.0, 0.0]])  # means 4.5, 4, 1, 1
    weight, y, bias = (
        torch.tensor([[1.0, 0.0, 3.0, 1.0], [0.0, 1.0, 0.0, 1.0]]),
        torch.tensor([0, 1]),
        torch.zeros(2),
    )
    # then sample 1 would be lost
    assert plugin._asleep(units, y, weight, bias, 0.0).tolist() == [2, 3]
    # one may be lost; the last unit stays
    assert plugin._asleep(units, y, weight, bias, 0.5).tolist() == [2, 3, 1]
    # without unit 2, 7 stands against 7.5
    assert plugin._asleep(units, y, weight, torch.tensor([0.0, 9.5]), 0.0).tolist() == []
    assert plugin._asleep(units[:, :1], y, weight[:, :1], bias, 1.0).tolist() == []


@pytest.mark.parametrize("count", [1, 2, 20])
def test_small_root_sets_and_heads_without_a_bias(count: int) -> None:
    view = server_view(24)
    view = replace(view, root=Samples(view.root.x[:count], view.root.y[:count]))
    before = view.params.clone()
    found = finished(view)
    assert len(view.head) == 1
    assert found.shape == before.shape
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert torch.equal(found, finished(view))
    assert torch.equal(view.params, before)


def test_a_repair_that_is_not_finite_is_given_up() -> None:
    view = replace(server_view(24), train=lambda params, given: params * torch.inf)
    assert torch.equal(finished(view), view.params)
