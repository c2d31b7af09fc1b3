"""CerP: the patch stays in its ball and works, and colluders keep close to their clean models and
unlike each other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.attacks.cerp import _like_models, _like_updates, _Shared, _stamped, _tuned, cerp
from backstop.platform.contract import Samples, Slot, Step
from backstop.platform.seeds import generator
from backstop.platform.threats.backdoor import Planted, bars
from tests.arena import Claim
from tests.views import CLASSES, attack_view, train_view

CLAIM = Claim("cerp(share=0.2)", effect=0.45, weaker="cerp(share=0.02)", bend=0.06)


def planned(rounds: int = 1, **params: float) -> list[Any]:
    """The plug-in's own state before and after each plan."""
    attack, view = cerp(**params), attack_view("image")  # type: ignore[arg-type]
    assert attack.init is not None and attack.plan is not None
    states = [attack.init(view)]
    for number in range(rounds):
        states.append(
            attack.plan(
                states[-1], replace(view, generator=generator(0, "tests", "attack", number))
            )
        )
    return [state.own for state in states]


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_the_patch_stays_in_its_ball_and_in_the_image_and_goes_on_from_round_to_round(
    value: float,
) -> None:
    states = planned(4, value=value, radius=0.5, rate=0.01, passes=2)
    far = [float((state.pixels - value).norm()) for state in states]
    assert far[0] == 0 and far == sorted(far) and far[1] < far[2] <= 0.5
    held = planned(4, value=value, radius=0.05, rate=0.1)[-1].pixels - value
    assert (0.045 if value else 0.01) < float(held.norm()) <= 0.05 + 1e-6  # black has no way down
    assert all(state.pixels.min() >= 0 and state.pixels.max() <= 1 for state in states)
    assert torch.equal(planned(radius=0.0)[1].pixels, torch.full((3, 12), 0.69))


def test_the_trigger_is_the_four_published_bars_in_light_gray() -> None:
    """24 pixels of CIFAR-10, one standard deviation above the mean."""
    attack, view = cerp(), attack_view("image", shape=(3, 32, 32))
    assert attack.init is not None and attack.trigger is not None
    x = torch.zeros(1, 3, 32, 32)
    seen = attack.trigger(attack.init(view), x, torch.Generator())[0]
    places = {(row, left + step) for row in (0, 4) for left in (0, 9) for step in range(6)}
    assert {tuple(place) for place in seen[0].nonzero().tolist()} == places
    assert torch.equal(seen[:, seen[0] > 0], torch.full((3, 24), 0.69))


def test_a_plan_passes_once_over_the_data_of_all_malicious_clients() -> None:
    seen: list[Tensor] = []
    view = attack_view("image")

    def model(params: Tensor, x: Tensor) -> Tensor:
        seen.append(x.detach())
        return view.model(params, x)

    attack = cerp(beta=0.0)
    assert attack.init is not None and attack.plan is not None
    attack.plan(attack.init(view), replace(view, model=model))
    assert [len(x) for x in seen] == [40]
    rest = torch.ones(8, 8, dtype=torch.bool)
    rest[tuple(zip(*bars(8, 8), strict=True))] = False
    wanted = sorted(view.data.x[..., rest].flatten(1).tolist())
    assert sorted(seen[0][..., rest].flatten(1).tolist()) == wanted


def test_a_trigger_is_learned_on_photographs() -> None:
    """After two rounds it is no longer the gray one that it was."""
    attack, view = cerp(), attack_view("image", shape=(3, 32, 32))
    assert attack.init is not None and attack.plan is not None
    state = attack.init(view)
    for number in range(2):
        state = attack.plan(state, replace(view, generator=generator(0, "tests", "attack", number)))
    assert float((state.own.pixels - 0.69).norm()) > 0.5


def test_the_tuned_patch_says_the_target_to_the_global_model() -> None:
    view, (before, after) = attack_view("image"), planned(target=1)
    loss = [
        cross_entropy(
            view.model(view.params, _stamped(view.data.x, state.pixels)), torch.full((40,), 1)
        )
        for state in (before, after)
    ]
    assert loss[1] < loss[0] - 0.1


def test_a_step_on_the_patch_is_projected_gradient_descent() -> None:
    draws = generator(0, "tests", "step")
    first, slope = torch.rand(2, 2, 2, generator=draws), torch.randn(2, 2, 2, generator=draws)
    pixels = (first + 0.05).clamp(max=1)
    for radius in (0.05, 0.4, 100.0):
        moved = (pixels - 0.3 * slope - first).double().numpy()
        moved *= min(1, radius / np.linalg.norm(moved))
        found = _tuned(pixels, first, lambda leaf: (leaf * slope).sum(), radius=radius, rate=0.3)
        np.testing.assert_allclose(
            found.numpy(), np.clip(first.double().numpy() + moved, 0, 1), atol=1e-6
        )
    lost = _tuned(pixels, first, lambda leaf: (leaf * torch.nan).sum(), radius=9.0, rate=0.3)
    torch.testing.assert_close(lost, pixels)


def test_the_cosines_are_their_formulas_and_a_model_that_has_not_moved_has_none() -> None:
    draws = generator(0, "tests", "penalty")
    params, start = torch.randn(2, 24, generator=draws)
    others = torch.randn(4, 24, generator=draws) * torch.tensor([[1e-3], [1.0], [9.0], [1.0]])
    u, v = (params - start).double().numpy(), others.double().numpy()
    cosines = sum(float(u @ row / np.linalg.norm(u) / np.linalg.norm(row)) for row in v)
    assert float(_like_updates(params - start, others)) == pytest.approx(cosines, abs=1e-5)
    assert float(_like_updates(start - start, others)) == 0
    layout = (Slot("a", 0, (4, 5)), Slot("b", 20, (4,)))
    by_layer = []
    for here in (slice(0, 20), slice(20, 24)):
        u, v = params[here].double().numpy(), others[:, here].double().numpy()
        by_layer.append(sum(float(u @ row / np.linalg.norm(u) / np.linalg.norm(row)) for row in v))
    assert float(_like_models(params, others, layout)) == pytest.approx(np.mean(by_layer), abs=1e-5)


def test_colluders_rehearse_on_poisoned_data_and_one_without_a_weight_for_it_does_not() -> None:
    seen: list[Samples] = []

    def train(params: Tensor, given: Samples) -> Tensor:
        seen.append(given)
        return torch.full_like(params, float(len(seen)))

    view = replace(attack_view("image"), train=train, members=torch.tensor([2, 0]))
    attack = cerp(target=3, share=0.25)
    assert attack.init is not None and attack.plan is not None
    state = attack.plan(attack.init(view), view).own
    assert state.members.tolist() == [2, 0] and state.rows[:, 0].tolist() == [1.0, 2.0]
    for given, index in zip(seen, [2, 0], strict=True):
        own, count = view.own(index), round(0.25 * view.sizes[index] + 1e-9)
        stamped = (given.x == _stamped(given.x, state.pixels)).flatten(1).all(1)
        assert stamped.sum() == count and (given.y[stamped] == 3).all()
        left = {tuple(image.flatten().tolist()) for image in given.x[~stamped]}
        assert left < {tuple(image.flatten().tolist()) for image in own.x}
    assert [given.y.tolist() for given in seen] != [view.own(index).y.tolist() for index in (2, 0)]
    silent = cerp(beta=0.0)
    assert silent.init is not None and silent.plan is not None
    assert len(silent.plan(silent.init(view), view).own.rows) == 0 and len(seen) == 2


def trained(rows: Tensor, **params: float | str) -> Tensor:
    """The row of malicious client 1 whose colluders 0, 1 and 2 rehearsed these rows."""
    attack = cerp(**params)  # type: ignore[arg-type]
    assert attack.train is not None
    return attack.train(
        Planted(CLASSES, _Shared(torch.zeros(3, 12), torch.arange(3), rows)),
        train_view("image", index=1),
    )


def test_a_client_turns_away_from_the_others_and_not_from_itself() -> None:
    rows = torch.randn(3, 24, generator=generator(0, "tests", "rehearsed"))
    free = trained(rows, alpha=0.0, beta=0.0)
    rows[[0, 2]] += free  # colluders who go the same way
    away = trained(rows, alpha=0.0, beta=0.5, cosine="updates")
    for other in (0, 2):
        assert torch.cosine_similarity(away, rows[other], dim=0) < torch.cosine_similarity(
            free, rows[other], dim=0
        )
    itself = rows.clone()
    itself[1] = 100 * free
    assert torch.equal(trained(itself, alpha=0.0, beta=0.5, cosine="updates"), away)


def test_models_turn_away_from_each_other_layer_by_layer() -> None:
    """The sum of two colluders' cosines falls where it has a weight; the view's one layer is the
    whole.
    """
    rows = torch.randn(3, 24, generator=generator(0, "tests", "rehearsed"))
    given = train_view("image", index=1)
    others = given.params + rows[[0, 2]]

    def alike(beta: float) -> float:
        model = given.params + trained(rows, alpha=0.0, beta=beta)
        return float(_like_models(model, others, given.layout))

    assert alike(9.0) < alike(0.0) - 0.05


def test_colluders_train_at_half_the_honest_rate() -> None:
    rows = torch.zeros(3, 24)
    given = train_view("image", index=1)

    def loss(params: Tensor, step: Step) -> Tensor:
        return cross_entropy(given.model(params, step.poisoned.x), step.poisoned.y)

    half = given.minimise(loss, rates=[0.5] * 3) - given.params
    torch.testing.assert_close(trained(rows, alpha=0.0, beta=0.0), half)
    whole = given.minimise(loss) - given.params
    torch.testing.assert_close(trained(rows, alpha=0.0, beta=0.0, pace=1.0), whole)


def test_a_client_keeps_close_to_the_model_it_would_have_without_poison() -> None:
    given = train_view("image", index=1)
    clean = (
        given.minimise(
            lambda params, step: cross_entropy(given.model(params, step.clean.x), step.clean.y)
        )
        - given.params
    )
    far = [
        float((trained(torch.ones(3, 24), alpha=alpha, beta=0.0) - clean).norm())
        for alpha in (0, 3, 9)
    ]
    assert far == sorted(far, reverse=True) and far[2] < 0.8 * far[0]
