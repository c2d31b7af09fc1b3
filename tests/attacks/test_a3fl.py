"""A3FL: a step of the patch, the unlearned model, what is kept between rounds, its effect."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.attacks.a3fl import _put, _step, a3fl
from backstop.platform.contract import AttackView, Samples
from backstop.platform.experiment import Experiment
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from backstop.platform.threats.backdoor import Planted
from tests.arena import ARENA, Claim
from tests.patterns import model, view_of_patterns
from tests.views import attack_view, with_data

CLAIM = Claim(
    "a3fl(share=0.4, size=2, steps=15, every=15)",
    effect=0.3,
    weaker="a3fl(share=0.05, size=2, steps=15, every=15)",
    bend=0.15,
)


@cache
def view() -> AttackView:
    """An adversary with a network that has learned four noisy patterns of 6 x 6 pixels."""
    return view_of_patterns("a3fl")


def planned(
    state: Planted | None = None, seen: AttackView | None = None, **params: object
) -> Planted:
    """The state after a plan, from the first one unless given."""
    attack = a3fl(**params)  # type: ignore[arg-type]
    seen = replace(seen or view(), generator=generator(0, "tests", "attack"))
    assert attack.init is not None and attack.plan is not None
    found: Planted = attack.plan(state or attack.init(seen), seen)
    return found


def loss(params: Tensor, pixels: Tensor, y: Tensor) -> float:
    return cross_entropy(model(params, _put(view().data.x, pixels)), y).item()


def reference(
    pixel: Tensor, x: Tensor, goal: Tensor, weights: list[Tensor], balance: float, rate: float
) -> float:
    """One step on the middle value of each line of x for linear models, from the gradient of the
    cross-entropy by hand.
    """
    gradient = 0.0
    stamped = x.double().numpy().copy()
    stamped[:, 2] = pixel.item()
    for share, weight in zip((1.0, balance), weights, strict=True):
        for line, label in zip(stamped, goal.tolist(), strict=True):
            logits = line @ weight.double().numpy()
            chance = np.exp(logits) / np.exp(logits).sum()
            chance[label] -= 1
            gradient += share * float(weight[2].double().numpy() @ chance) / len(x)
    return float(np.clip(pixel.item() - rate * np.sign(gradient), 0, 1))


@pytest.mark.parametrize("balance", [0.0, 0.5, 20.0])
def test_a_step_goes_down_both_losses(balance: float) -> None:
    draws = generator(0, "tests", "steps")
    for _ in range(20):
        x, goal, pixel = (
            torch.rand(7, 5, generator=draws),
            torch.randint(3, (7,), generator=draws),
            torch.rand(1, generator=draws),
        )
        weights = [torch.randn(5, 3, generator=draws) for _ in range(2)]
        models = [
            (share, lambda image, weight=weight: image.flatten(1) @ weight)
            for share, weight in zip((1.0, balance), weights, strict=True)
        ]
        shaped = x.view(7, 1, 1, 5).clone()
        # row 0 is all there is, column 2
        found = _step(pixel.view(1, 1, 1), shaped, goal, models, 0.03)
        assert found.item() == pytest.approx(
            reference(pixel, x, goal, weights, balance, 0.03), abs=1e-6
        )


@pytest.mark.parametrize("params", [{}, {"steps": 30, "every": 30}, {"steps": 5, "every": 200}])
def test_the_unlearned_model_is_made_and_has_unlearned(params: dict[str, int]) -> None:
    """Also where it is made only once in a plan: from the first step on."""
    used: list[Tensor] = []

    def watched(given: Tensor, x: Tensor) -> Tensor:
        if len(x) == 64:  # a step of the patch; the unlearned model is trained on fewer at a time
            used.append(given.detach())
        return model(given, x)

    planned(None, replace(view(), model=watched), **params)
    steps, every = params.get("steps", 30), params.get("every", 10)
    assert len(used) == 2 * steps
    globally, unlearned = used[::2], used[1::2]
    assert all(torch.equal(one, view().params) for one in globally)
    assert len({tuple(one.tolist()) for one in unlearned}) == -(-steps // every)
    gray, y = torch.full((1, 5, 5), 0.5), view().data.y
    assert loss(unlearned[0], gray, y) < 0.9 * loss(view().params, gray, y)
    assert all(not torch.equal(one, view().params) for one in unlearned)


@pytest.mark.parametrize("target", [0, 1, 2, 3])
def test_the_learned_patch_fools_the_model_more_than_others_of_its_norm(target: int) -> None:
    learned, goal = planned(target=target, steps=100).own, torch.full_like(view().data.y, target)
    assert loss(view().params, learned, goal) < 0.9 * loss(
        view().params, torch.full((1, 5, 5), 0.5), goal
    )
    draws = generator(0, "tests", "other patches")
    others = [
        learned.flatten()[torch.randperm(25, generator=draws)].view(1, 5, 5) for _ in range(20)
    ]
    assert loss(view().params, learned, goal) < min(
        loss(view().params, other, goal) for other in others
    )


@pytest.mark.parametrize(
    ("balance", "epochs", "rest", "pixel"),
    [
        (0.0, 5, 1.0, 0.51),  # white is class 1 to the global model, if only just
        (0.01, 5, 1.0, 0.51),
        # having unlearned gray, which is class 0, the model takes white for class 0
        (1000.0, 5, 1.0, 0.49),
        (1000.0, 1, 1.0, 0.51),  # one pass is not enough for that
        # an unlearned model that points the other way counts with the other sign: cos = -1
        (1000.0, 5, 0.0, 0.51),
    ],
)
def test_the_unlearned_model_counts_by_its_weight_and_its_cosine(
    balance: float, epochs: int, rest: float, pixel: float
) -> None:
    params = torch.cat([torch.tensor([-0.01, 0.01]), torch.full((50,), rest)])
    data = Samples(torch.zeros(8, 1, 1, 1), torch.zeros(8, dtype=torch.int64))
    seen = replace(
        with_data(attack_view("image"), data),
        params=params,
        model=lambda given, x: x.flatten(1) * given[:2],
    )
    found = planned(None, seen, target=1, balance=balance, epochs=epochs, steps=1)
    assert found.own.item() == pytest.approx(pixel)


def test_the_patch_is_five_pixels_wide_from_row_and_column_two_on() -> None:
    attack = a3fl()
    assert attack.init is not None and attack.trigger is not None and attack.poison is not None
    state = attack.init(attack_view("image", shape=(3, 32, 32)))
    x = torch.zeros(16, 3, 32, 32)
    stamped = attack.trigger(state, x, torch.Generator())
    assert (stamped[..., 2:7, 2:7] == 0.5).all() and stamped.sum() == 16 * 75 * 0.5
    poisoned, _ = attack.poison(state, x, torch.ones(16, dtype=torch.int64), 0, torch.Generator())
    assert poisoned.flatten(1).any(1).sum() == 4


def test_the_patch_goes_on_from_the_last_round() -> None:
    first = planned()
    second = planned(first, steps=1)
    assert 0 < (second.own - first.own).abs().max() <= 0.01 + 1e-6
    assert (first.own - 0.5).abs().max() > 0.05


def test_without_samples_to_attack_the_patch_stays() -> None:
    nobody, alone = attack_view("image", malicious=0), view().data.y != 2
    assert torch.equal(planned(seen=nobody).own, torch.full((3, 5, 5), 0.5))
    without = with_data(view(), Samples(view().data.x[alone], view().data.y[alone]))
    assert torch.equal(planned(seen=without, source=2).own, torch.full((1, 5, 5), 0.5))


def test_a_model_that_has_diverged_spoils_nothing() -> None:
    assert torch.equal(
        planned(None, replace(view(), params=view().params * torch.inf)).own,
        torch.full((1, 5, 5), 0.5),
    )


def test_the_test_set_is_stamped_with_what_was_learned() -> None:
    experiment = Experiment(
        ARENA.replace(attack=to_chain("a3fl(steps=5)", "attack"), rounds=2, eval_every=1),
        Path("unused"),
        "cpu",
    )
    patches = [torch.full((1, 5, 5), 0.5)]
    for _ in range(2):
        experiment.round()
        triggered = experiment.probe().triggered
        assert triggered is not None
        seen = triggered.x[..., 2:7, 2:7]
        assert (seen == seen[0]).all() and not torch.equal(seen[0], patches[-1])
        assert torch.equal(seen[0], experiment.state.attack[0].own)
        patches.append(seen[0])
