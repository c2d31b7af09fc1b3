"""Constrain-and-scale: the sum of the losses is the paper's, stealth keeps real rows near, and the
rate falls as published.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from backstop.attacks.constrain_and_scale import _Plan, _success, constrain_and_scale
from backstop.platform.contract import AttackView, Part, Samples
from backstop.platform.experiment import Experiment
from backstop.platform.rounds.views import Presence
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from tests.arena import ARENA, Claim, first_rows
from tests.views import CLASSES, attack_view, with_data

# attacked in every round, with a small factor: the published steps of the rate are for one round
# and a large one
CLAIM = Claim(
    "badnets(share=0.2)+constrain_and_scale(strength=5, falling=false)",
    effect=0.4,
    weaker="badnets(share=0.2)+constrain_and_scale(strength=1, falling=false)",
    bend=0.25,
)
Distance = Literal["cosine", "l2"]
DISTANCES: list[Distance] = ["cosine", "l2"]


def first_round(attack: str, lr: float = 0.05) -> tuple[Tensor, Tensor]:
    """The global model of the arena, and what its malicious clients send in the first round."""
    return first_rows(attack, optimizer=Part("sgd", {"lr": lr, "momentum": 0.9}))


def reference(
    alpha: float,
    distance: Distance,
    model: Tensor,
    delta: Tensor,
    y: Tensor,
    logits: Tensor,
    weights: list[float],
) -> float:
    """The whole loss in float64, the update times 5 where it is sent."""
    g, u, z = model.double().numpy(), delta.detach().double().numpy(), logits.double().numpy()
    each = [
        -(row[label] - np.log(np.exp(row).sum())) for row, label in zip(z, y.tolist(), strict=True)
    ]
    classification = np.average(each, weights=[weights[label] for label in y.tolist()])
    sent = g + 5 * u
    cosine = sent @ g / np.sqrt((sent @ sent) * (g @ g))
    return float(
        alpha * classification
        + (1 - alpha) * (1000 * (1 - cosine) if distance == "cosine" else np.sqrt(u @ u))
    )


def draw() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draws = generator(0, "tests", "constrain and scale")
    model, delta = torch.randn(24, generator=draws), torch.randn(24, generator=draws)
    return (
        model,
        delta.requires_grad_(),
        torch.tensor([0, 3, 1]),
        torch.randn(3, 4, generator=draws),
    )


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 1.0], [16.0, 1.0, 2.0, 0.5]])
@pytest.mark.parametrize("distance", DISTANCES)
def test_added_to_the_honest_loss_it_is_the_sum_of_the_paper(
    distance: Distance, weights: list[float]
) -> None:
    """With the class weights of the honest loss, which the whole loss has too."""
    attack, (model, delta, y, logits) = constrain_and_scale(alpha=0.3, distance=distance), draw()
    assert attack.objective is not None
    plan = _Plan(model, torch.tensor(weights))
    whole = cross_entropy(logits, y, plan.weights) + attack.objective(plan, delta, y, y, logits)
    assert whole.item() == pytest.approx(
        reference(0.3, distance, model, delta, y, logits, weights), rel=1e-5
    )


def test_the_cosine_is_that_of_the_model_as_it_is_sent() -> None:
    attack = constrain_and_scale(alpha=1e-9, strength=5.0, distance="cosine")
    assert attack.objective is not None
    logits = torch.tensor([[100.0, 0.0]])  # nothing is left to learn
    found = attack.objective(
        _Plan(torch.tensor([1.0, 0.0])), torch.tensor([0.0, 0.1]), logits, torch.tensor([0]), logits
    )
    assert found.item() == pytest.approx(105.573, abs=1e-2)


def test_no_class_is_unlearned_where_classes_have_weights() -> None:
    """A small α is a small rate, and no reason to climb."""
    attack, plan = constrain_and_scale(alpha=0.5), _Plan(torch.zeros(2), torch.tensor([16.0, 1.0]))
    assert attack.objective is not None
    logits, y = torch.zeros(3, 2, requires_grad=True), torch.tensor([0, 1, 1])
    loss = cross_entropy(logits, y, plan.weights) + attack.objective(
        plan, torch.zeros(2), y, y, logits
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[range(3), y] < 0).all()  # each true class gains


@pytest.mark.parametrize("distance", DISTANCES)
def test_stealth_has_the_gradient_of_its_formula(distance: Distance) -> None:
    attack, (model, delta, y, logits) = constrain_and_scale(alpha=0.3, distance=distance), draw()
    assert attack.objective is not None
    (found,) = torch.autograd.grad(attack.objective(_Plan(model), delta, y, y, logits), delta)
    sent = model + 5 * delta.detach()
    cosine = cosine_similarity(sent, model, dim=0)
    by_hand = 5000 * (cosine * sent / sent.norm() ** 2 - model / (sent.norm() * model.norm()))
    expected = 0.7 * (by_hand if distance == "cosine" else delta.detach() / delta.detach().norm())
    assert expected.norm() > 0.01
    torch.testing.assert_close(
        found, expected, rtol=1e-3, atol=1e-3 if distance == "cosine" else 1e-6
    )
    at_rest = torch.zeros(24, requires_grad=True)  # where local training starts
    (found,) = torch.autograd.grad(attack.objective(_Plan(model), at_rest, y, y, logits), at_rest)
    assert found.isfinite().all() and found.norm() < 1e-2


def seen(hits: int) -> AttackView:
    """An adversary of ten samples, all poisoned to class 0; the global model labels so many of them
    so.
    """
    x = torch.zeros(10, 2)
    x[:hits, 0] = 1.0

    def model(_: Tensor, given: Tensor) -> Tensor:
        return torch.nn.functional.one_hot((given[:, 0] != 1).long(), CLASSES).float()

    given = with_data(attack_view("table"), Samples(x, torch.full((10,), 2)))
    return replace(given, model=model, poison=lambda x, y, index: (x, torch.zeros_like(y)))


@pytest.mark.parametrize(
    ("hits", "pace"), [(0, 1.0), (2, 1.0), (3, 1 / 50), (6, 1 / 50), (7, 1 / 5000), (10, 1 / 5000)]
)
def test_the_rate_falls_once_the_backdoor_passes_20_and_60_percent(hits: int, pace: float) -> None:
    attack, steady = constrain_and_scale(), constrain_and_scale(falling=False)
    assert attack.plan is not None and attack.pace is not None
    assert steady.plan is not None and steady.pace is not None
    assert _success(seen(hits)) == hits / 10
    assert attack.pace(attack.plan(None, seen(hits))) == pytest.approx(pace)
    assert steady.pace(steady.plan(None, seen(hits))) == 1.0


def test_without_a_poisoned_label_there_is_no_backdoor() -> None:
    assert _success(attack_view("table")) == 0.0


@pytest.mark.parametrize("own", ["", "+alter_min"])
def test_a_lower_rate_is_a_shorter_update(own: str) -> None:
    """In both kinds of local training."""
    experiment = Experiment(
        ARENA.replace(
            attack=to_chain(
                f"badnets(share=0.2)+constrain_and_scale(alpha=1, strength=1){own}", "attack"
            ),
            local_epochs=1,
        ),
        Path("unused"),
        "cpu",
    )
    built, state = experiment.built, experiment.state

    def length(pace: float) -> float:
        given = [
            _Plan(state.params, None, pace) if isinstance(part, _Plan) else part for part in planned
        ]
        rows = experiment.clients.train(
            0, built.malicious.tolist(), state.params, state.buffers, tuple(given)
        ).rows
        return float(rows.norm(dim=1).mean())

    assert built.attack.plan is not None
    view = experiment.views.attack(state, Presence(torch.arange(len(built.malicious)), 10, 0.4))
    planned = built.attack.plan(state.attack, view)
    assert any(isinstance(part, _Plan) and part.pace == 1 for part in planned)
    assert length(0.02) < 0.05 * length(1.0)


def test_class_weights_are_those_of_the_model() -> None:
    spec = ARENA.replace(model=Part("mlp", {"class_weights": "1-2-3-4-5-6-7-8-9-10"}))
    experiment = Experiment(spec, Path("unused"), "cpu")
    view = experiment.views.attack(experiment.state, Presence(torch.arange(4), 10, 0.4))
    plan = constrain_and_scale().plan
    assert plan is not None
    weights = plan(None, view).weights
    assert weights is not None and weights.tolist() == list(range(1, 11))


def unusual(distance: Distance, stage: str, lr: float = 0.05) -> float:
    """The mean distance of the arena's malicious models from the global one after a first round."""
    model, rows = first_round(f"badnets(share=0.2)+{stage}", lr)
    if distance == "cosine":
        return float((1 - cosine_similarity(model + rows, model[None])).mean())
    return float(rows.norm(dim=1).mean())


@pytest.mark.parametrize("distance", DISTANCES)
def test_less_alpha_sends_real_rows_nearer_to_the_global_model(distance: Distance) -> None:
    found = [
        unusual(distance, f"constrain_and_scale(alpha={alpha}, strength=1, distance={distance})")
        for alpha in (1.0, 0.5, 0.2)
    ]
    assert found[0] > 1.2 * found[1] > 1.2 * 1.2 * found[2]


@pytest.mark.parametrize(("distance", "alpha", "lr"), [("l2", 0.5, 0.05), ("cosine", 0.1, 0.5)])
def test_real_rows_are_nearer_than_by_the_smaller_weight_of_the_other_loss_alone(
    distance: Distance, alpha: float, lr: float
) -> None:
    stealthy = unusual(
        distance, f"constrain_and_scale(alpha={alpha}, strength=1, distance={distance})", lr
    )
    # α · CE without stealth: a smaller rate
    assert stealthy < 0.8 * unusual(distance, f"overtrain(epochs=2, lr={alpha * lr})")


def test_the_factor_comes_last() -> None:
    _, rows = first_round("badnets(share=0.2)+constrain_and_scale(strength=1)")
    torch.testing.assert_close(
        first_round("badnets(share=0.2)+constrain_and_scale(strength=4)")[1], 4 * rows
    )
    assert not torch.equal(
        first_round("badnets(share=0.2)+constrain_and_scale(strength=1, alpha=1)")[1], rows
    )


def test_buffers_are_scaled_as_parameters_are() -> None:
    attack = constrain_and_scale(strength=4.0)
    assert attack.craft_buffers is not None
    changes = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    assert torch.equal(attack.craft_buffers(None, changes, attack_view("table")), 4 * changes)
