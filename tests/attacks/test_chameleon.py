"""Two stages of local training: the contrastive loss, who learns when, and that the backdoor bites
and lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, log
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from backstop.attacks.chameleon import _contrast, chameleon
from backstop.platform.contract import Memory, Samples, Slot, Step, TrainView
from backstop.platform.seeds import generator
from tests.arena import Claim, effect
from tests.views import CLASSES, FEATURES, train_view

# so few rounds and steps are enough at the honest rate, where the published one is a fifth of it
CLAIM = Claim(
    "badnets(share=0.2)+chameleon(epochs=2, rate=1, head_epochs=1, head_rate=1)",
    effect=0.5,
    weaker="badnets(share=0.2)",
    bend=0.35,
    changes={"attack_stop": 6, "rounds": 12},
)
WIDTH = 3
ENCODER = FEATURES * WIDTH


def reference(
    features: list[list[float]], y: list[int], beta: list[float], temperature: float
) -> float:
    """The weighted supervised contrastive loss, pair by pair."""
    unit = [[value / sum(v * v for v in row) ** 0.5 for value in row] for row in features]
    score = [
        [sum(a * b for a, b in zip(one, other, strict=True)) / temperature for other in unit]
        for one in unit
    ]
    total = 0.0
    for i, label in enumerate(y):
        peers = [p for p in range(len(y)) if p != i and y[p] == label]
        below = sum(exp(score[i][a]) for a in range(len(y)) if a != i)
        total += beta[i] * sum(-log(exp(score[i][p]) / below) for p in peers) / max(len(peers), 1)
    return total / len(y)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize(
    "labels", [[0, 0, 1, 2, 2, 2, 0], [0, 1, 2, 3, 0, 1, 2], [5, 5, 5, 5, 5, 5, 5]]
)
def test_the_contrastive_loss(labels: list[int], temperature: float) -> None:
    draws = generator(0, "tests", "features")
    features, beta = torch.randn(7, 4, generator=draws), torch.rand(7, generator=draws) * 5
    found = _contrast(features, torch.tensor(labels), beta, temperature)
    wanted = reference(features.double().tolist(), labels, beta.tolist(), temperature)
    torch.testing.assert_close(
        found, torch.tensor(wanted, dtype=torch.float32), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("features", [torch.ones(1, 4), torch.zeros(3, 4)])
def test_a_lone_sample_and_dead_features_have_finite_gradients(features: Tensor) -> None:
    leaf = features.clone().requires_grad_()
    loss = _contrast(leaf, torch.zeros(len(leaf), dtype=torch.int64), torch.ones(len(leaf)), 0.07)
    assert loss.isfinite() and torch.autograd.grad(loss, leaf)[0].isfinite().all()
    assert len(leaf) > 1 or loss == 0


def test_the_wanted_labels_are_those_of_changed_samples() -> None:
    x, y = torch.zeros(4, 2), torch.tensor([0, 1, 2, 3])
    assert Step(Samples(x, y), Samples(x, y)).changed.y.tolist() == []
    assert Step(Samples(x, y), Samples(x, torch.tensor([0, 3, 3, 3]))).changed.y.tolist() == [3, 3]
    # already of the wanted class: only its input tells
    stamped = x.index_fill(0, torch.tensor([0]), 1.0)
    assert Step(Samples(x, y), Samples(stamped, y)).changed.y.tolist() == [0]


def stamped(x: Tensor, y: Tensor, _index: int, _draws: torch.Generator) -> tuple[Tensor, Tensor]:
    return x.index_put((torch.arange(4), torch.tensor(0)), torch.tensor(9.0)), y.index_fill(
        0, torch.arange(4), 0
    )


def features(params: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(x @ params[:ENCODER].reshape(FEATURES, WIDTH) / 3)


def model(params: Tensor, x: Tensor) -> Tensor:
    return features(params, x) @ params[ENCODER:].reshape(CLASSES, WIDTH).T


class Found(NamedTuple):
    params: Tensor
    rates: list[float]  # of each step


def view(seen: list[Found]) -> TrainView:
    """A client with an encoder and a head; what ``minimise`` is called with goes to ``seen``."""
    given = train_view("table", stamped, d=ENCODER + CLASSES * WIDTH)

    def minimise(
        loss: Callable[[Tensor, Step], Tensor],
        start: Tensor | None = None,
        steps: Sequence[Step] | None = None,
        rates: Sequence[float] | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        found = given.minimise(loss, start, steps, rates, memory)
        assert steps is not None and rates is not None and len(steps) == len(rates)
        seen.append(Found(found, list(rates)))
        return found

    head = (Slot("any.weight", ENCODER, (CLASSES, WIDTH)),)
    return replace(given, model=model, features=features, head=head, minimise=minimise)


def test_the_encoder_learns_first_and_then_the_head_alone() -> None:
    seen: list[Found] = []
    given = view(seen)
    train = chameleon(epochs=4).train
    assert train is not None
    row = train(None, given)
    (adapted, passes), (final, steps) = seen
    assert (len(passes), len(steps)) == (4 * len(given.steps), 3 * len(given.steps))
    assert torch.equal(row, final - given.params)
    assert torch.equal(adapted[ENCODER:], given.params[ENCODER:]) and not torch.equal(
        adapted[:ENCODER], given.params[:ENCODER]
    )
    assert torch.equal(final[:ENCODER], adapted[:ENCODER]) and not torch.equal(
        final[ENCODER:], adapted[ENCODER:]
    )


def test_rates_are_factors_on_the_honest_one_and_fall() -> None:
    """The authors' schedule: 0.005 in the first stage and 0.001 in the second, where honest clients
    have 0.0265.
    """
    seen: list[Found] = []
    given = view(seen)
    train = chameleon().train
    assert train is not None
    train(None, given)
    each = len(given.steps)
    encoder, head = (
        [found.rates[number] for number in range(0, len(found.rates), each)] for found in seen
    )
    assert all(
        found.rates == [rate for rate in found.rates[::each] for _ in range(each)] for found in seen
    )
    published = [0.005, 0.005, 5e-4, 5e-4, 5e-5, 5e-5, 5e-6, 5e-6, 5e-7, 5e-7]
    assert encoder == pytest.approx([rate / 0.0265 for rate in published], rel=0.1)
    assert head == pytest.approx([rate / 0.0265 for rate in (0.001, 0.001, 5e-6)], rel=0.1)


def test_poisoned_samples_leave_their_class_for_the_wanted_one() -> None:
    """More so with more weight on the wanted class."""
    seen: list[Found] = []
    given = view(seen)
    true, (x, y) = given.steps[0].clean.y, given.steps[0].poisoned

    def pull(params: Tensor) -> float:
        z = features(params, x)
        poisoned = (y != true).nonzero().flatten()  # of classes 1 to 3
        near = [cosine_similarity(z[i], z[(y == 0) & (true == 0)][-1:]) for i in poisoned]
        far = [cosine_similarity(z[i], z[y == true[i]]) for i in poisoned]
        return float(torch.cat(near).mean() - torch.cat(far).mean())

    def after(weight: float) -> float:
        seen.clear()
        train = chameleon(weight=weight, epochs=2, temperature=0.5, rate=2.0).train
        assert train is not None
        train(None, given)
        return pull(seen[0].params)

    assert pull(given.params) < 0 < after(1.0) < after(6.0) - 1


def test_the_backdoor_outlasts_that_of_plain_training() -> None:
    """Six rounds after the last attacked one."""
    assert effect(CLAIM, CLAIM.attack) - effect(CLAIM, CLAIM.weaker) >= CLAIM.bend
