"""MGDA: the weights are those of the shortest vector, the steps those of the formula, and the
attack owes its effect to them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.attacks.mgda import _scaled, _weight, mgda
from backstop.platform.contract import Attack, Samples, Step, TrainView
from backstop.platform.seeds import generator
from tests.arena import Claim, effect
from tests.views import CLASSES, FEATURES, train_view, two_poisoned

CLAIM = Claim("badnets(share=0.05)+mgda", effect=0.7, weaker="badnets(share=0.05)", bend=0.25)


def train(attack: Attack, view: TrainView) -> Tensor:
    assert attack.train is not None
    return attack.train(None, view)


def shortest(one: np.ndarray, other: np.ndarray) -> float:
    """The weight of ``one`` at which the mixture is shortest, by trying them all."""
    tried = np.linspace(0.001, 0.999, 10001)
    return float(tried[np.argmin([np.linalg.norm(a * one + (1 - a) * other) for a in tried])])


def reference(view: TrainView, *, scaled: bool) -> np.ndarray:
    """In float64, the gradients by hand, for the linear model and the plain descent at rate 0.1 of
    the view.
    """

    def slope(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        z = x @ w.reshape(FEATURES, CLASSES)
        share = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return (x.T @ (share - np.eye(CLASSES)[y]) / len(y)).ravel(), float(
            -np.log(share[np.arange(len(y)), y]).mean()
        )

    def divided(grad: np.ndarray, value: float) -> np.ndarray:
        return grad / (min(float(np.linalg.norm(grad)) * value, 10.0) + 1e-5)

    start = w = view.params.double().numpy()
    for (x, y), (px, py) in view.steps:
        one, loss = slope(w, x.double().numpy(), y.numpy())
        other, aim = slope(w, px[:2].double().numpy(), py[:2].numpy())
        parts = one, other
        if scaled:
            parts = divided(one, loss), divided(other, aim)
        alpha = shortest(*parts)
        w = w - 0.1 * (alpha * one + (1 - alpha) * other)
    return np.asarray(w - start)


def test_the_weight_is_that_of_the_shortest_mixture() -> None:
    draws = generator(0, "tests", "min norm")
    found = []
    for turn in (-1.0, -0.5, 0.0, 0.7, 0.95):  # from opposite to nearly parallel gradients
        for length in (0.1, 1.0, 5.0):
            one = torch.randn(6, generator=draws)
            other = length * (turn * one + (1 - abs(turn)) * torch.randn(6, generator=draws))
            found.append(_weight(one, other).item())
            assert found[-1] == pytest.approx(
                shortest(one.double().numpy(), other.double().numpy()), abs=2e-4
            )
    assert min(found) == pytest.approx(0.001)  # neither loss is ever left out
    assert max(found) == pytest.approx(0.999)
    assert any(0.1 < weight < 0.9 for weight in found)
    assert (
        _weight(torch.ones(3), torch.ones(3)) == 0.5
        and _weight(torch.zeros(3), torch.zeros(3)) == 0.5
    )


def test_what_a_gradient_is_divided_by_is_capped() -> None:
    grad = torch.tensor([30.0, 40.0])
    for loss, divisor in ((0.1, 5.0), (2.0, 10.0)):  # 50 · 0.1, and not 100
        found = _scaled(grad, torch.tensor(loss))
        torch.testing.assert_close(found, grad / divisor, rtol=1e-5, atol=0)
    assert not _scaled(torch.zeros(2), torch.tensor(0.0)).any()


def test_unscaled_gradients_leave_the_backdoor_out_which_is_why_they_are_scaled() -> None:
    """Measured: 0.09 unscaled, 0.56 for the patch alone, 0.997 scaled."""
    stages = ("+mgda(scaled=false)", "", "+mgda")
    unscaled, plain, scaled = (effect(CLAIM, f"badnets(share=0.05){stage}") for stage in stages)
    assert unscaled + 0.2 < plain < scaled - 0.2


@pytest.mark.parametrize("large", [1.0, 8.0])  # so large inputs have large losses: the cap holds
@pytest.mark.parametrize("scaled", [True, False])
def test_steps_by_hand(scaled: bool, large: float) -> None:
    given = train_view("table")
    steps = []
    for clean, _ in given.steps:
        dealt = Samples(clean.x * large, clean.y)
        steps.append(Step(dealt, Samples(*two_poisoned(*dealt, 0, given.generator))))
    minimise = partial(given.minimise, start=None, steps=steps)
    view = replace(given, steps=tuple(steps), minimise=minimise)
    np.testing.assert_allclose(
        train(mgda(scaled=scaled), view).numpy(),
        reference(view, scaled=scaled),
        rtol=2e-3,
        atol=2e-4,
    )


def only_step(view: TrainView, step: Step) -> TrainView:
    """The same client with one local step to take."""
    return replace(
        view,
        steps=(step,),
        minimise=lambda loss, start=None, steps=None, rates=None, memory=None: view.minimise(
            loss, start, [step]
        ),
    )


def test_no_step_trades_one_loss_for_the_other() -> None:
    view = train_view("table", two_poisoned)
    step = view.steps[1]
    row = train(mgda(scaled=False), only_step(view, step))
    for part in (step.clean, Samples(step.poisoned.x[:2], step.poisoned.y[:2])):
        params = view.params.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(view.model(params, part.x), part.y), params)
        # the shortest mixture has a part along both gradients, unless it is zero
        assert row @ gradient < 0


def test_without_a_poisoned_sample_it_trains_as_honest_clients_do() -> None:
    view = train_view("table", lambda x, y, index, draws: (x, y))
    honest = view.minimise(
        lambda params, step: cross_entropy(view.model(params, step.clean.x), step.clean.y)
    )
    torch.testing.assert_close(train(mgda(), view), honest - view.params)


def test_a_backdoor_that_is_learned_to_the_last_bit_does_not_stop_the_training() -> None:
    # both poisoned samples are wanted to be 0
    view, sure = train_view("table", two_poisoned), torch.tensor([[200.0, 0, 0, 0]] * 2)

    def model(params: Tensor, x: Tensor) -> Tensor:
        return view.model(params, x) if len(x) > 2 else sure + 0 * params.sum()

    row = train(mgda(), replace(view, model=model))
    x, y = view.steps[0].clean
    assert row.isfinite().all()
    assert cross_entropy(view.model(view.params + row, x), y) < cross_entropy(
        view.model(view.params, x), y
    )
