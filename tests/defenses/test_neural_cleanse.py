"""Neural Cleanse: the planted class is flagged and unlearned, and a clean model is left alone."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backstop.defenses import neural_cleanse as plugin
from backstop.platform.contract import Samples, ServerView
from backstop.platform.experiment import Experiment
from backstop.platform.remedies.inversion import invert
from backstop.platform.specs.part import to_chain
from backstop.search_spaces.quickstart import BASE
from tests.arena import last_metrics
from tests.views import CLASSES, samples, server_view

TARGET = 7
ATTACKED = BASE.replace(
    attack=to_chain(f"badnets(target={TARGET}, share=0.5)", "attack"),
    clients=20,
    per_round=10,
    rounds=12,
    eval_every=12,
    root_size=100,
    seed=1,
)


@lru_cache
def trained(*, dormant: bool) -> tuple[Experiment, ServerView]:
    """A finished experiment without a defense, and what its server may know."""
    experiment = Experiment(ATTACKED.replace(dormant=dormant), Path("unused"), "cpu")
    for _ in range(ATTACKED.rounds):
        experiment.round()
    return experiment, experiment.views.server(experiment.state)


def flagged(view: ServerView) -> list[int]:
    found = invert(view.model, view.params, view.root.x, torch.arange(view.classes), steps=100)
    numbers: list[int] = plugin._flagged(found.mask.sum((1, 2, 3))).tolist()
    return numbers


def image_view(count: int) -> ServerView:
    return replace(server_view(24), root=samples("image", count, "root"))


def finished(view: ServerView, **params: float) -> Tensor:
    finish = plugin.neural_cleanse(**params).finish  # type: ignore[arg-type]
    assert finish
    return finish(None, view)


def test_the_planted_class_is_flagged_and_no_other() -> None:
    assert flagged(trained(dormant=False)[1]) == [TARGET]
    assert TARGET not in flagged(trained(dormant=True)[1])


def test_the_backdoor_is_unlearned() -> None:
    last = last_metrics(ATTACKED.replace(defense=to_chain("neural_cleanse", "defense")))
    assert last["round/attack_success_rate"] > 0.8
    assert last["repaired/attack_success_rate"] < 0.1
    assert last["repaired/clean_accuracy"] > last["round/clean_accuracy"] - 0.05


def test_it_is_the_trigger_that_unlearns() -> None:
    """Fine-tuning on the root set as it is leaves much of the backdoor."""
    experiment, view = trained(dormant=False)
    params = view.params
    for _ in range(5):
        params = params + view.train(params, view.root)
    experiment.state = experiment.state._replace(params=params)
    tuned = experiment._measure()["round/attack_success_rate"]
    experiment.state = experiment.state._replace(params=view.params)
    assert tuned > 0.25


@pytest.mark.parametrize(
    ("norms", "wanted"),
    [
        ([10.0, 11.0, 3.0, 12.0, 13.0, 40.0], [2]),
        ([10.0, 10.0, 10.0, 10.0], []),
        ([10.0, 10.0, 10.0, 9.0], [3]),  # a MAD of zero: whatever is below
        ([1.0, 100.0], []),
        ([8.0, 9.0, 10.0, 11.0, 12.0], []),
        # MAD 1, just beyond two deviations
        ([10.0 - 2 * 1.4826 * 1.01, 9.0, 10.0, 11.0, 12.0], [0]),
        ([10.0 - 2 * 1.4826 * 0.99, 9.0, 10.0, 11.0, 12.0], []),
    ],
)
def test_outliers_on_the_small_side(norms: list[float], wanted: list[int]) -> None:
    assert plugin._flagged(torch.tensor(norms)).tolist() == wanted


def test_nothing_flagged_leaves_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "_flagged", lambda norms: norms.new_empty(0, dtype=torch.int64))
    view = image_view(20)
    found = finished(view, steps=3)
    assert torch.equal(found, view.params)
    assert found is not view.params


@pytest.mark.parametrize(("count", "stamped"), [(1, 1), (2, 1), (20, 4)])
def test_what_it_unlearns_from(monkeypatch: pytest.MonkeyPatch, count: int, stamped: int) -> None:
    """A fifth of the root set is stamped, at least one sample, and all labels are true; each epoch
    goes on from the last.
    """
    monkeypatch.setattr(plugin, "_flagged", lambda norms: torch.tensor([0, CLASSES - 1]))
    seen: list[tuple[Tensor, Samples]] = []

    def spy(params: Tensor, given: Samples) -> Tensor:
        seen.append((params, given))
        return torch.ones_like(params)

    view = replace(image_view(count), train=spy)
    before, root = view.params.clone(), Samples(view.root.x.clone(), view.root.y.clone())
    found = finished(view, steps=3, epochs=2)
    torch.testing.assert_close(found, before + 2)
    assert torch.equal(view.params, before)
    assert torch.equal(view.root.x, root.x)
    assert len(seen) == 2
    for params, given in seen:
        assert torch.equal(given.y, root.y)
        assert (given.x != root.x).flatten(1).any(1).sum() == stamped
        assert given.x.shape == root.x.shape
        assert torch.equal(params, before) == (params is seen[0][0])


def test_the_same_call_gives_the_same_bits_and_a_broken_repair_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plugin, "_flagged", lambda norms: torch.tensor([1]))
    found = finished(image_view(20), steps=3)
    assert torch.equal(found, finished(image_view(20), steps=3))
    assert found.shape == (24,)
    assert found.dtype == torch.float32
    assert not torch.equal(found, image_view(20).params)
    broken = replace(image_view(20), train=lambda params, given: params * torch.nan)
    assert torch.equal(finished(broken, steps=3), broken.params)
