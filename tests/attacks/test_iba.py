"""IBA: what the generator computes, how its strength shrinks, that it learns, and that it bites."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.attacks.iba import _stamped, iba
from backstop.platform.contract import AttackView, Samples
from backstop.platform.experiment import Experiment
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from backstop.platform.threats.backdoor import Planted, target_labels
from backstop.platform.threats.generators import drawn, perturbation, shapes
from tests.arena import ARENA, Claim
from tests.patterns import model, view_of_patterns
from tests.references import generators as references
from tests.views import CLASSES, attack_view, samples, with_data

CLAIM = Claim(  # measured with seeds 0, 1, 2: 0.49, 0.65, 0.32; weaker -0.13, 0.01, -0.15
    "iba(share=0.5, eps=0.2)",
    effect=0.25,
    weaker="iba(share=0.5, eps=0.05)",
    bend=0.25,
    changes={"rounds": 8},
)


@cache
def view() -> AttackView:
    """An adversary with a network that has learned four noisy patterns of 6 x 6 pixels."""
    return replace(view_of_patterns("iba"), train=lambda params, _: torch.zeros_like(params))


def states(rounds: int, seen: AttackView | None = None, **params: object) -> list[Planted]:
    """The state before the first plan and after each."""
    attack, seen = iba(**params), replace(seen or view(), generator=generator(0, "tests", "attack"))  # type: ignore[arg-type]
    assert attack.init is not None and attack.plan is not None
    found = [attack.init(seen)]
    for _ in range(rounds):
        found.append(attack.plan(found[-1], seen))
    return found


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 5), (3, 5, 4)])
def test_the_generator_is_its_formula(shape: tuple[int, ...]) -> None:
    draws = generator(0, "tests", "generator")
    weights = tuple(
        drawn(size, draws) + 0.1 * torch.randn(size, generator=draws) for size in shapes(shape[0])
    )
    x = torch.rand(2, *shape, generator=draws)
    np.testing.assert_allclose(
        perturbation(weights, x).numpy(),
        references.perturbation([w.double().numpy() for w in weights], x.double().numpy()),
        atol=1e-5,
    )


def test_strength_shrinks_with_each_attacked_round_down_to_the_least() -> None:
    found = [
        state.own.eps for state in states(6, eps=0.4, decay=0.5, least=0.03, passes=0, ready=0)
    ]
    assert found == pytest.approx([0.4, 0.4, 0.2, 0.1, 0.05, 0.03, 0.03])
    published = [state.own.eps for state in states(11, passes=0, ready=0)]
    assert published[0] == published[1] == 0.074
    assert published[-1] == pytest.approx(0.074 * 0.999**10)
    # below the least: as it is
    assert [state.own.eps for state in states(2, eps=0.01, passes=0, ready=0)] == [0.01] * 3


def test_the_published_strength_is_a_step_of_the_pixel_scale() -> None:
    """0.3 in pixels of standard deviation 0.247: white noise of 1 brings 0.5 to 0.574."""
    weights = tuple(torch.zeros(shape) for shape in shapes(3))
    weights[-1].fill_(20.0)
    (state,) = states(0)
    own = state.own._replace(weights=weights)
    assert _stamped(own, torch.full((1, 3, 4, 4), 0.5)).flatten().tolist() == pytest.approx(
        [0.574] * 48
    )


def test_the_test_set_is_stamped_with_the_strength_and_generator_of_the_training() -> None:
    chain = "iba(eps=0.4, decay=0.5, passes=1, share=1, ready=0)"
    experiment = Experiment(
        ARENA.replace(attack=to_chain(chain, "attack"), rounds=3, eval_every=1),
        Path("unused"),
        "cpu",
    )
    clean = experiment.built.data.test.x.float() / 255
    for eps in (0.4, 0.2, 0.1):
        experiment.round()
        triggered, own = experiment.probe().triggered, experiment.state.attack[0].own
        assert triggered is not None and own.eps == pytest.approx(eps)
        torch.testing.assert_close(
            triggered.x, (clean + eps * perturbation(own.weights, clean)).clamp(0, 1)
        )
        assert (triggered.x - clean).abs().max() > 0.5 * eps
        poison = experiment.built.attack.poison
        assert poison is not None
        trained, _ = poison(
            experiment.state.attack, clean[:9], torch.arange(9), 0, torch.Generator()
        )
        torch.testing.assert_close(trained, triggered.x[:9])


@pytest.mark.parametrize("target", [0, 1, 2, 3, "next"])
def test_the_trained_generator_fools_the_model_more_than_one_of_the_same_strength(
    target: int | Literal["next"],
) -> None:
    before, *_, after = states(3, target=target, decay=0, eps=0.2)
    goal = target_labels(view().data.y, target, None, CLASSES)

    def loss(weights: tuple[Tensor, ...], sign: float = 1) -> float:
        return cross_entropy(
            model(
                view().params,
                _stamped(after.own._replace(weights=weights, eps=sign * 0.2), view().data.x),
            ),
            goal,
        ).item()

    learned = loss(after.own.weights)
    assert learned < 0.8 * loss(before.own.weights)
    draws = generator(0, "tests", "other generators")
    assert all(learned < loss(tuple(drawn(size, draws) for size in shapes(1))) for _ in range(20))
    assert learned < loss(after.own.weights, sign=-1)  # as many bits changed, the other way


def test_the_state_holds_plain_tensors_and_numbers() -> None:
    own = states(1)[-1].own
    assert not any(weight.requires_grad for weight in own.weights) and math.isfinite(own.eps)
    assert own.rounds in (0, 1) and own.ready is bool(own.rounds)


def test_nothing_is_poisoned_before_the_trigger_has_success_with_the_clients_own_models() -> None:
    x, y = samples("image", 9, "test", (1, 6, 6))
    for ready, poisons in ((0.0, True), (1.0, False)):
        attack, (first, after) = iba(ready=ready, eps=0.01), states(1, ready=ready, eps=0.01)
        assert attack.poison is not None
        assert (first.own.ready, after.own.ready, after.own.rounds) == (
            poisons,
            poisons,
            int(poisons),
        )
        stamped, label = attack.poison(after, x, y, 0, torch.Generator())
        assert torch.equal(stamped, x) is torch.equal(label, y) is not poisons
    *_, last = states(3, eps=1.0, least=0.0, ready=0.85)  # a change of any size reaches the target
    assert last.own.ready
    later = replace(view(), params=torch.zeros_like(view().params))
    attack = iba(eps=1.0, least=0.0, ready=0.85)
    assert attack.plan is not None
    assert attack.plan(last, later).own.ready  # once reached, it stays


def test_the_generator_is_trained_on_the_clients_own_models() -> None:
    """The model that the logits come from is G plus the honest update."""
    used: list[Tensor] = []

    def watched(params: Tensor, x: Tensor) -> Tensor:
        used.append(params)
        return model(params, x)

    step = torch.ones_like(view().params)
    states(1, replace(view(), model=watched, train=lambda *_: step), passes=1)
    assert used and all(torch.equal(params, view().params + step) for params in used)


def test_without_samples_to_attack_the_state_stays() -> None:
    left = view().data.y != 2
    for seen, source in (
        (attack_view("image", malicious=0), None),
        (with_data(view(), Samples(*(part[left] for part in view().data))), 2),
    ):
        before, after = states(1, seen, source=source)
        assert after.own is before.own


def test_a_model_that_has_diverged_spoils_nothing() -> None:
    assert all(
        weight.isfinite().all()
        for weight in states(1, replace(view(), params=view().params * torch.inf))[-1].own.weights
    )


def test_an_image_changes_by_no_more_than_the_strength() -> None:
    own, x = states(1)[-1].own._replace(eps=0.1), samples("image", 8, "test", (1, 6, 6)).x
    assert (_stamped(own, x) - x).abs().max() <= 0.1 + 1e-6
