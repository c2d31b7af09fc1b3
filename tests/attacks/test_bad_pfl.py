"""Bad-PFL: both features against their formulas, what is trained on, whose model the test is made
with, that it bites.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.attacks.bad_pfl import _disrupted, _Reach, bad_pfl
from backstop.platform.contract import AttackView, Samples, Step
from backstop.platform.seeds import generator
from backstop.platform.threats.backdoor import Planted
from backstop.platform.threats.generators import drawn, perturbation, shapes
from tests.arena import Claim
from tests.patterns import model, view_of_patterns
from tests.references import generators, softmax
from tests.views import CLASSES, attack_view, train_view, with_data

CLAIM = Claim(
    "bad_pfl(eps=0.2, steps=10)",
    effect=0.3,
    weaker="bad_pfl(eps=0.02, steps=10)",
    bend=0.3,
)


@cache
def view() -> AttackView:
    """An adversary with a network that has learned four noisy patterns of 6 x 6 pixels."""
    return view_of_patterns("bad_pfl")


def planned(seen: AttackView | None = None, rounds: int = 1, **params: object) -> Planted:
    """The state after some plans."""
    attack = bad_pfl(**params)  # type: ignore[arg-type]
    seen = replace(seen or view(), generator=generator(0, "tests", "attack"))
    assert attack.init is not None and attack.plan is not None
    state = attack.init(seen)
    for _ in range(rounds):
        state = attack.plan(state, seen)
    found: Planted = state
    return found


def linear(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1) @ weight


@pytest.mark.parametrize("case", ["random", "tied", "zero", "single"])
def test_disruption_is_a_projected_signed_step_away_from_the_true_class(case: str) -> None:
    draws = generator(0, "tests", "disruption", case)
    for reach in (0.0, 0.02, 0.3):
        n = 1 if case == "single" else 5
        x = torch.rand(n, 1, 2, 3, generator=draws) * (case != "zero")
        x = x[:1].expand(n, -1, -1, -1).clone() if case == "tied" else x
        y = torch.randint(3, (n,), generator=draws)
        weight = torch.randn(6, 3, generator=draws)
        start = reach * (2 * torch.rand(x.shape, generator=draws) - 1)
        found = _disrupted(partial(linear, weight), x, y, start, reach)
        clean = x.flatten(1).double().numpy()
        begun = np.clip(clean + start.flatten(1).double().numpy(), 0, 1)
        slope = softmax.in_inputs(begun, weight.double().numpy(), y.tolist())
        known = np.clip(begun + reach * np.sign(slope), clean - reach, clean + reach)
        np.testing.assert_allclose(found.flatten(1).numpy(), np.clip(known, 0, 1), atol=1e-6)


def test_both_features_are_added_and_stay_in_the_image() -> None:
    draws = generator(0, "tests", "put")
    weights = tuple(drawn(size, draws) for size in shapes(2))
    x = torch.rand(3, 2, 4, 5, generator=draws)
    away = (x + 0.02).clamp(0, 1)
    known = generators.perturbation(
        [weight.double().numpy() for weight in weights], x.double().numpy()
    )
    found = _Reach(away=0.02, towards=0.3).put(weights, x, away)
    expected = np.clip(away.double().numpy() + 0.3 * known, 0, 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("target", [0, 3, "next"])
def test_the_generator_learns_to_fool_the_global_model(target: int | str) -> None:
    state = planned(rounds=3, target=target, eps=0.2).own
    first = planned(rounds=0, target=target, eps=0.2).own
    x, y = view().data
    goal = (y + 1) % CLASSES if target == "next" else torch.full_like(y, int(target))

    def loss(weights: tuple[Tensor, ...]) -> float:
        stamped = (x + 0.2 * perturbation(weights, x)).clamp(0, 1)
        return cross_entropy(model(view().params, stamped), goal).item()

    assert loss(state.weights) < 0.8 * loss(first.weights)


def seen_in_training(state: Planted, **params: object) -> list[tuple[Tensor, Step]]:
    """The inputs that a client trains on, with the step that they are made of."""
    attack = bad_pfl(**params)  # type: ignore[arg-type]
    assert attack.train is not None and attack.poison is not None
    poison = attack.poison
    given = train_view(
        "image", lambda x, y, index, draws: poison(state, x, y, index, draws), shape=(1, 6, 6)
    )
    inputs: list[Tensor] = []

    def watched(params: Tensor, x: Tensor) -> Tensor:
        if params.requires_grad:  # disruption asks a model that is not being trained
            inputs.append(x.detach())
        return given.model(params, x)

    attack.train(state, replace(given, model=watched))
    return list(zip(inputs, given.steps, strict=True))


def test_a_client_trains_on_both_features_where_its_batch_is_poisoned_and_only_there() -> None:
    for x, step in seen_in_training(planned(), share=0.25, eps=0.1, disruption=0.05):
        where = step.where
        assert where.tolist() == [True, True] + [False] * 6
        assert torch.equal(x[~where], step.clean.x[~where])
        change = (x[where] - step.clean.x[where]).abs().max()
        assert 0.02 < change <= 0.15 + 1e-6
        alone = (step.poisoned.x[where] - step.clean.x[where]).abs().max()
        assert alone <= 0.1 + 1e-6  # the step holds the generator's part


def test_the_disruption_follows_the_model_in_training() -> None:
    """The same sample is disrupted otherwise once the model has moved."""
    attack = bad_pfl(share=1.0, disruption=0.3, eps=1e-6)
    assert attack.train is not None
    given = train_view("image", shape=(1, 6, 6))
    models: list[Tensor] = []

    def watched(params: Tensor, x: Tensor) -> Tensor:
        if not params.requires_grad:
            models.append(params)
        return given.model(params, x)

    attack.train(planned(), replace(given, model=watched))
    assert len(models) == len(given.steps)
    assert torch.equal(models[0], given.params) and not torch.equal(models[1], given.params)


def triggered(state: Planted, seen: AttackView) -> Tensor:
    """The triggered test set's inputs."""
    attack = bad_pfl()
    assert attack.test_set is not None
    made = attack.test_set(
        state, replace(seen, test=view().data, generator=generator(0, "tests", "test"))
    )
    assert made.paired and torch.equal(made.truth, view().data.y) and not made.wanted.any()
    return made.x


def test_the_test_is_made_with_the_model_that_the_adversary_was_last_sent() -> None:
    """So it does not depend on when it is made: an interrupted run makes it anew."""
    state = planned()
    x = triggered(state, view())
    assert (x - view().data.x).abs().max() <= 8 / 255 + 1e-6
    assert torch.equal(x, triggered(state, replace(view(), params=-view().params)))
    other = state._replace(own=state.own._replace(params=-view().params))
    assert not torch.equal(x, triggered(other, view()))


def test_without_samples_to_attack_the_generator_stays() -> None:
    nobody, alone = attack_view("image", malicious=0), view().data.y != 2
    without = with_data(view(), Samples(view().data.x[alone], view().data.y[alone]))
    check: Callable[[Planted, Planted], bool] = lambda one, other: all(  # noqa: E731
        map(torch.equal, one.own.weights, other.own.weights)
    )
    assert check(planned(nobody), planned(nobody, rounds=0))
    assert check(planned(without, source=2), planned(without, rounds=0, source=2))
    assert not check(planned(without), planned(without, rounds=0))


def test_a_model_that_has_diverged_spoils_nothing() -> None:
    broken = planned(replace(view(), params=view().params * torch.inf))
    assert all(weight.isfinite().all() for weight in broken.own.weights)
