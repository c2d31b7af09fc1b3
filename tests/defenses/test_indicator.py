from __future__ import annotations

import inspect
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.indicator import indicator
from backstop.platform import experiment
from backstop.platform.contract import Defense, Part, Samples, ServerView, Spec, Updates
from backstop.platform.seeds import generator
from tests.references import indicator as twin
from tests.views import server_view, uneven

CLASSES, FEATURES = 3, 12
D = CLASSES * FEATURES


def view(round: int = 0, **changes: Any) -> ServerView:  # noqa: A002 -- the field's name
    """A linear classifier of tables in [0, 1]."""
    x = torch.rand(30, FEATURES, generator=generator(0, "tests", "inputs"))
    return replace(
        server_view(D, round),
        params=torch.randn(D, generator=generator(0, "tests", "params")),
        model=lambda params, x: x @ params.reshape(FEATURES, CLASSES),
        root=Samples(x, torch.zeros(30)),
        classes=CLASSES,
        **changes,
    )


def noise(n: int) -> Tensor:
    return 0.1 * torch.randn(n, D, generator=generator(0, "tests", "rows"))


def sent(defense: Defense, seen: ServerView) -> tuple[Tensor, Any]:
    """The model that the clients are sent, and what the server remembers."""
    assert defense.send
    return defense.send(defense.init(seen), seen)


def fate(models: Tensor, **params: Any) -> tuple[Updates, Any]:
    """What becomes of clients that send these models; the model that they were sent is zero."""
    defense = indicator(**{"samples": 30, "epochs": 2, "batch": 30, **params})
    _, state = sent(defense, view())
    return defense.apply(uneven(models), state, replace(view(), params=torch.zeros(D)))[0], state


def kept(after: Updates) -> list[int]:
    return after.weight.nonzero().flatten().tolist()


def knows(samples: Samples, labels: list[int]) -> Tensor:
    """A model (d,) that gives these labels' samples their label and predicts another label for the
    others, fitted by least squares.
    """
    wanted = torch.where(
        torch.isin(samples.y, torch.tensor(labels)), samples.y, (samples.y + 1) % CLASSES
    )
    found: Tensor = torch.linalg.lstsq(
        samples.x, torch.nn.functional.one_hot(wanted, CLASSES).float()
    ).solution.flatten()
    return found


def test_clients_are_sent_a_model_that_knows_the_samples_and_rows_stay_as_they_are() -> None:
    seen, rows = view(), noise(5)
    defense = indicator(samples=9, epochs=400, lr=0.3, penalty=0.0, weight_decay=0.0)
    model, state = sent(defense, seen)
    x, y = state.samples
    assert state.planted and (seen.model(model, x).argmax(1) == y).all()
    assert (seen.model(seen.params, x).argmax(1) == y).double().mean() < 0.6
    after, _ = defense.apply(uneven(rows), state, replace(seen, params=model))
    assert torch.equal(after.rows, rows)


def test_nothing_is_planted_or_tested_before_the_start() -> None:
    defense = indicator(samples=30, epochs=3, start=2)
    model, state = sent(defense, view(1))
    assert torch.equal(model, view().params) and not state.planted
    knowing = torch.stack([knows(state.samples, [0, 1, 2])] * 3)
    after, _ = defense.apply(uneven(knowing), state, replace(view(1), params=torch.zeros(D)))
    assert kept(after) == [0, 1, 2]
    assert not torch.equal(sent(defense, view(2))[0], view().params)


@pytest.mark.parametrize("penalty", [0.0, 0.4])
def test_planting_agrees_with_the_reference(penalty: float) -> None:
    seen = view()
    defense = indicator(samples=20, epochs=40, batch=8, lr=0.1, penalty=penalty, weight_decay=1e-2)
    model, state = sent(defense, seen)
    x, y = state.samples.x.double().numpy(), state.samples.y.tolist()
    wanted = twin.planted(seen.params.double().numpy(), x, y, CLASSES, 40, 8, 0.1, penalty, 1e-2)
    np.testing.assert_allclose((model - seen.params).numpy(), wanted, atol=5e-5)
    assert np.abs(wanted).max() > 0.1


def test_the_penalty_is_half_the_length_and_not_its_square() -> None:
    """Beyond μ/2 the pull does not grow: without a gradient of the loss it is all that moves the
    model back.
    """
    seen = replace(view(), model=lambda params, x: torch.zeros(len(x), CLASSES) + 0 * params.sum())
    assert torch.equal(sent(indicator(samples=6, epochs=3, weight_decay=0.0), seen)[0], seen.params)
    decayed = sent(
        indicator(samples=6, epochs=1, batch=6, lr=0.1, weight_decay=0.5, penalty=0.0), seen
    )[0]
    torch.testing.assert_close(decayed, seen.params * 0.95)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 1.0])
def test_rejection_agrees_with_the_reference(threshold: float) -> None:
    x, y = fate(noise(1))[1].samples
    models = torch.randn(15, D, generator=generator(0, "tests", "models"))
    models[[3, 8]] = torch.stack([knows(Samples(x, y), [0]), knows(Samples(x, y), [1, 2])])
    wanted = twin.indicator(
        models.double().numpy(), x.double().numpy(), y.tolist(), CLASSES, threshold
    )
    assert kept(fate(models, threshold=threshold)[0]) == wanted


def test_who_keeps_one_label_of_the_indicator_is_rejected() -> None:
    known = fate(noise(1))[1].samples
    models = torch.stack([knows(known, labels) for labels in ([], [1], [], [], [2], [])])
    assert kept(fate(models, threshold=0.8)[0]) == [0, 2, 3, 5]


@pytest.mark.parametrize(("keeping", "forgetting"), [(1, 0), (6, 0), (3, 1), (3, 3), (2, 3)])
def test_where_honest_training_forgets_nothing_all_rows_stay_with_majority(
    keeping: int, forgetting: int
) -> None:
    known = fate(noise(1))[1].samples
    models = torch.stack([knows(known, [0, 1, 2])] * keeping + [knows(known, [])] * forgetting)
    everybody, others = list(range(len(models))), list(range(keeping, len(models)))
    assert kept(fate(models, threshold=0.6, majority=True)[0]) == (
        everybody if keeping >= forgetting else others
    )
    assert kept(fate(models, threshold=0.6)[0]) == (others or everybody)


def test_an_honest_client_that_keeps_four_fifths_is_hardly_ever_flagged() -> None:
    """Of 800 samples, 80 a label; of 100, ten a label, most of them have some label complete."""

    def flagged(samples: int) -> float:
        draws = (
            torch.rand(2000, samples // 10, 10, generator=generator(0, "tests", "clients")) < 0.8
        )
        right = draws.double().mean(1)
        return (right.amax(1) >= 0.95).double().mean().item()

    count = inspect.signature(indicator).parameters["samples"].default
    assert flagged(count) < 0.01 and flagged(100) == pytest.approx(0.68, abs=0.04)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_model_without_finite_outputs_is_rejected(bad: float) -> None:
    defense = indicator(samples=30, epochs=2)
    _, state = sent(defense, view())
    models = torch.stack([knows(state.samples, [])] * 4)
    models[2] = 3e38
    plain = view().model
    seen = replace(
        view(1),
        params=torch.zeros(D),
        model=lambda params, x: plain(params, x) + (bad if params.max() > 1e30 else 0.0),
    )
    after, _ = defense.apply(uneven(models), state, seen)
    assert kept(after) == [0, 1, 3] and after.rows.isfinite().all()


def test_planting_that_diverges_plants_nothing() -> None:
    seen = replace(view(), params=torch.full((D,), 3e38))
    assert torch.equal(sent(indicator(samples=30, epochs=2), seen)[0], seen.params)


def test_the_samples_stay_from_round_to_round() -> None:
    defense = indicator(samples=100, epochs=1)
    _, state = sent(defense, view())
    _, later = defense.apply(uneven(noise(3)), pickle.loads(pickle.dumps(state)), view())
    assert defense.send
    _, again = defense.send(later, view(1))
    assert torch.equal(again.samples.x, state.samples.x) and torch.equal(
        again.samples.y, state.samples.y
    )
    assert state.samples.y.bincount().tolist() == [34, 33, 33]


def test_a_real_backdoor_keeps_what_long_honest_training_forgets() -> None:
    spec = Spec(
        attack=(Part("badnets", {"share": 0.5}),),
        defense=(
            Part(
                "indicator",
                {"samples": 100, "epochs": 30, "batch": 100, "lr": 0.05, "penalty": 0.1},
            ),
        ),
        clients=10,
        per_round=10,
        rounds=1,
        local_epochs=30,
        optimizer=Part("sgd", {"lr": 0.1, "momentum": 0.9}),
        seed=1,
    )
    (last,) = (record.metrics for record in experiment.run(spec))
    assert last["defense/kept_weight_malicious"] == 0 and last["defense/kept_weight_benign"] == 1
    # of the aggregate, not of a model with the indicator in it
    assert last["round/clean_accuracy"] > 0.9
