from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import LocalOutlierFactor
from torch import Tensor

from backstop.defenses.baffle import _vote, baffle
from backstop.platform.contract import (
    Answers,
    ClientView,
    Question,
    Samples,
    ServerView,
    Spec,
    Updates,
)
from backstop.platform.experiment import run
from backstop.platform.remedies.outliers import local_outlier_factor
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from tests.arena import ARENA
from tests.references import baffle as twin
from tests.views import server_view

CLASSES = 4


def saying(predicted: Sequence[Sequence[int]], y: Sequence[int]) -> tuple[Tensor, ClientView]:
    """Models of one number each, and a client for whose samples they say this."""
    table = torch.nn.functional.one_hot(torch.tensor(predicted), CLASSES).float()
    shared = {key: value for key, value in vars(server_view(1)).items() if key in FIELDS}
    view = ClientView(**shared, data=Samples(torch.zeros(len(y), 1), torch.tensor(y)))
    models = torch.arange(float(len(predicted)))[:, None]
    return models, replace(view, model=lambda model, x: table[int(model[0])], classes=CLASSES)


FIELDS = ("round", "params", "layout", "model", "features", "head", "classes", "generator")


@pytest.mark.parametrize("models", [6, 7, 9, 14, 23])
@pytest.mark.parametrize("samples", [1, 8, 40])
@pytest.mark.parametrize("tolerance", [0.5, 1.0, 1.5])
def test_a_client_votes_as_the_twin_does(models: int, samples: int, tolerance: float) -> None:
    draws = generator(0, "tests", "votes", models, samples)
    votes = []
    for _ in range(8):
        y = torch.randint(CLASSES, (samples,), generator=draws)
        wrong = torch.rand(models, samples, generator=draws) < 0.3
        drawn = torch.randint(CLASSES, (models, samples), generator=draws)
        predicted = drawn.where(wrong, y).tolist()
        given, view = saying(predicted, y.tolist())
        scores = _vote(tolerance, given, view, 0)
        assert scores[:-1].eq(1).all()
        votes.append(scores[-1, 0].item())
        assert votes[-1] == twin.accepts(predicted, y.tolist(), CLASSES, tolerance)


def test_models_that_never_change_are_accepted_and_any_change_of_them_is_not() -> None:
    y = [0, 1, 2, 3, 0]
    still = [[0, 1, 2, 3, 1]] * 9
    given, view = saying(still, y)
    assert _vote(1.5, given, view, 0).all()
    given, view = saying([*still[:-1], [0, 1, 2, 0, 1]], y)
    assert _vote(1.5, given, view, 0)[-1] == 0


@pytest.mark.parametrize("n", [3, 6, 20])
def test_the_factor_is_scikit_learns_where_no_distances_are_equal(n: int) -> None:
    others = torch.randn(n, 5, generator=generator(0, "tests", n), dtype=torch.float64)
    point = torch.full((5,), 0.7, dtype=torch.float64)
    k = min(3, n - 1)
    model = LocalOutlierFactor(n_neighbors=k, novelty=True).fit(others.numpy())
    wanted = -model.score_samples(point[None].numpy())[0]
    assert local_outlier_factor(point, others, k) == pytest.approx(wanted, rel=1e-12)
    order = torch.randperm(n, generator=generator(0, "tests", "order"))
    assert local_outlier_factor(point, others[order], k) == pytest.approx(wanted, rel=1e-12)


def test_it_asks_about_the_last_models_and_the_next_one_and_counts_the_votes() -> None:
    asked: list[tuple[Question, Tensor | int]] = []
    against = 4

    def validate(question: Question, voters: Tensor | int) -> Answers:
        asked.append((question, voters))
        scores = torch.ones(10, len(question.models), 1)
        scores[:against, -1] = 0.0
        return Answers(torch.arange(10), scores)

    def round_of(state: Any, params: Tensor) -> tuple[Updates, Any]:
        view: ServerView = replace(server_view(3), params=params, validate=validate, server_lr=0.5)
        rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
        return defense.apply(Updates(rows, torch.tensor([1.0, 3.0]), torch.arange(2)), state, view)

    defense = baffle(history=6, quorum=0.5)
    state = defense.init(server_view(3))
    for step in range(9):
        after, state = round_of(state, torch.full((3,), float(step)))
        assert after.weight.tolist() == [1.0, 3.0]
    assert len(asked) == 5  # from the fifth model on
    question, voters = asked[-1]
    assert (
        voters == 10 and (question.sender == -1).all() and (question.low, question.high) == (0, 1)
    )
    assert question.models[:-1, 0].tolist() == [2, 3, 4, 5, 6, 7, 8]  # ℓ + 1 of them
    assert question.models[-1].tolist() == [8 + 0.5 / 4, 8 + 0.5 * 9 / 4, 8]
    against = 5
    after, state = round_of(state, torch.full((3,), 9.0))
    assert not after.weight.any() and len(state) == 7
    after, again = round_of(state, torch.full((3,), 9.0))
    assert torch.equal(again, state)  # a refused round leaves no model behind


def refusing(spec: Spec) -> tuple[list[int], list[float]]:
    """The rounds that were refused, and the success of the attack after each round."""
    records = list(run(spec, folder=Path("unused"), device="cpu"))
    kept = [record.metrics["defense/kept_weight_benign"] for record in records]
    success = [record.metrics["round/attack_success_rate"] for record in records]
    return [number for number, share in enumerate(kept) if share == 0], success


@pytest.mark.parametrize("defense", ["fedavg", "baffle"])
def test_one_replaced_model_after_a_quiet_time_is_refused(defense: str) -> None:
    spec = ARENA.replace(
        attack=to_chain("badnets(share=0.5)+model_replacement(strength=5)", "attack"),
        defense=to_chain(defense, "defense"),
        rounds=28,
        attack_start=26,
        attack_stop=27,
        eval_every=1,
    )
    refused, success = refusing(spec)
    if defense == "fedavg":
        assert success[26] > 0.8
        return
    assert 26 in refused and max(success[26:]) < 0.05
    assert len([number for number in refused if number < 26]) <= 3  # honest rounds pass
    assert np.mean(success[:26]) < 0.05
