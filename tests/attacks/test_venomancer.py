"""Venomancer: trigger and loss against their formulas, targets of training and test, that the
generator learns any target, that it bites.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.attacks.venomancer import _elsewhere, _in_turn, _loss, _stamped, venomancer
from backstop.platform.contract import AttackView, Samples
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator
from backstop.platform.threats.generators import Weights, drawn, shapes
from backstop.platform.training.evaluate import success
from tests.arena import Claim
from tests.patterns import model, view_of_patterns
from tests.references import generators, softmax
from tests.views import CLASSES, attack_view, with_data

CLAIM = Claim("venomancer", effect=0.15, weaker="venomancer(eps=0.05)", bend=0.15)


@cache
def view() -> AttackView:
    """An adversary with a network that has learned four noisy patterns of 6 x 6 pixels."""
    return view_of_patterns("venomancer")


def planned(seen: AttackView | None = None, rounds: int = 1, **params: float) -> Weights:
    """The state after some plans."""
    attack = venomancer(**params)  # type: ignore[arg-type]
    seen = replace(seen or view(), generator=generator(0, "tests", "attack"))
    assert attack.init is not None and attack.plan is not None
    state = attack.init(seen)
    for _ in range(rounds):
        state = attack.plan(state, seen)
    found: Weights = state
    return found


@pytest.mark.parametrize("case", ["random", "tied", "zero", "single"])
def test_trigger_and_loss_are_their_formulas(case: str) -> None:
    draws = generator(0, "tests", "venomancer", case)
    n = 1 if case == "single" else 3
    x = torch.rand(n, 2, 3, 4, generator=draws) * (case != "zero")
    x = x[:1].expand(n, -1, -1, -1).clone() if case == "tied" else x
    network = tuple(0.5 * drawn(size, draws) for size in shapes(2, extra=1))
    planes, label = torch.randn(5, 1, 3, 4, generator=draws), torch.arange(n)
    weight = torch.randn(24, 5, generator=draws)
    images = np.concatenate([x.double().numpy(), planes[label].double().numpy()], 1)
    noise = generators.perturbation([part.double().numpy() for part in network], images)
    stamped = np.clip(x.double().numpy() + 0.4 * noise, 0, 1)
    weights = (*network, planes)
    np.testing.assert_allclose(_stamped(weights, x, label, 0.4).numpy(), stamped, atol=1e-5)
    seen = []
    for one, other in zip(stamped.reshape(n, -1), x.double().numpy().reshape(n, -1), strict=True):
        length = max(float(np.linalg.norm(one)), 1e-8) * max(float(np.linalg.norm(other)), 1e-8)
        seen.append(1 - float(one @ other) / length)
    logits = stamped.reshape(n, -1) @ weight.double().numpy()
    known = 0.2 * softmax.cross_entropy(logits, label.tolist()) + 0.8 * float(np.mean(seen))
    found = _loss(lambda x: x.flatten(1) @ weight, x, label, 0.4, 0.2, weights)
    assert found.item() == pytest.approx(known, abs=1e-5)


def test_targets_of_training_are_any_class_but_the_true_one() -> None:
    y = torch.arange(4000) % CLASSES
    label = _elsewhere(y, CLASSES, generator(0, "tests", "targets"))
    counts = [
        [int(((y == a) & (label == b)).sum()) for b in range(CLASSES)] for a in range(CLASSES)
    ]
    for a in range(CLASSES):
        assert counts[a][a] == 0
        assert min(counts[a][b] for b in range(CLASSES) if b != a) > 280  # of 333 on average


def test_every_pair_of_true_and_wanted_class_is_tested_equally_often() -> None:
    y = torch.randint(5, (203,), generator=generator(0, "tests", "classes"))
    wanted = _in_turn(y, 5)
    for a in range(5):
        counts = [int(((y == a) & (wanted == b)).sum()) for b in range(5)]
        assert counts[a] == 0
        others = counts[:a] + counts[a + 1 :]
        assert max(others) - min(others) <= 1
    assert torch.equal(_in_turn(torch.tensor([1, 1, 0]), 2), torch.tensor([0, 0, 1]))


def test_attack_success_is_the_mean_over_targets() -> None:
    attack = venomancer()
    assert attack.test_set is not None
    x, y = view().data.x[:72].repeat(10, 1, 1, 1), torch.arange(720) % CLASSES
    made = attack.test_set(planned(), replace(view(), test=Samples(x, y)))
    assert made.paired and torch.equal(made.truth, y)
    predicted = torch.randint(CLASSES, (720,), generator=generator(0, "tests", "predicted"))
    predicted[predicted == 0] = 1  # a model that never says one of the targets
    by_target = [
        (predicted == label)[made.wanted == label].double().mean().item()
        for label in range(CLASSES)
    ]
    rate = success(predicted, made, y)["round/attack_success_rate"]
    assert by_target[0] == 0 and rate == pytest.approx(np.mean(by_target), abs=1e-9)


def test_the_generator_learns_every_target() -> None:
    weights, first = planned(rounds=3, beta=0.5, eps=1.0), planned(rounds=0)
    x, y = view().data

    def rate(given: Weights, label: int) -> float:
        others = y != label
        goal = torch.full((int(others.sum()),), label)
        found = model(view().params, _stamped(given, x[others], goal, 1.0)).argmax(1)
        return (found == label).float().mean().item()

    for label in range(CLASSES):
        assert rate(first, label) < 0.2 and rate(weights, label) > 0.6
    faint = planned(rounds=3, beta=0.001, eps=1.0)
    goal = (y + 1) % CLASSES

    def change(given: Weights) -> Tensor:
        return (_stamped(given, x, goal, 1.0) - x).abs().mean()

    assert change(first) == 0 and 0 < change(faint) < 0.5 * change(weights)


def test_a_share_of_a_batch_is_sent_to_other_classes() -> None:
    attack, weights = venomancer(share=0.25, eps=0.3), planned(beta=0.5)
    assert attack.poison is not None
    x, y = view().data.x[:16], view().data.y[:16]
    poisoned, label = attack.poison(weights, x, y, 0, generator(0, "tests", "poison"))
    assert (label[:4] != y[:4]).all() and torch.equal(label[4:], y[4:])
    torch.testing.assert_close(poisoned[:4], _stamped(weights, x[:4], label[:4], 0.3))
    assert torch.equal(poisoned[4:], x[4:])


def test_one_class_is_refused() -> None:
    attack = venomancer()
    assert attack.init is not None
    with pytest.raises(BadInput, match="two classes"):
        attack.init(replace(view(), classes=1))


def test_without_samples_and_with_a_diverged_model_the_generator_stays_finite() -> None:
    nobody = attack_view("image", malicious=0)
    assert all(map(torch.equal, planned(nobody), planned(nobody, rounds=0)))
    empty = with_data(view(), Samples(view().data.x[:0], view().data.y[:0]))
    assert all(map(torch.equal, planned(empty), planned(empty, rounds=0)))
    broken = planned(replace(view(), params=view().params * torch.inf))
    assert all(weight.isfinite().all() for weight in broken)
