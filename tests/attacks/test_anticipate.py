"""Training through simulated rounds: the models that are anticipated, the gradient through them,
and that the backdoor bites.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.attacks.anticipate import _models, _Odds, anticipate
from backstop.platform.contract import Samples, TrainView
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import attack_view, train_view

CLAIM = Claim(
    "badnets(share=0.2)+anticipate()",
    effect=0.5,
    weaker="badnets(share=0.2)+anticipate(rounds=0)",
    bend=0.2,
)
CLASSES, INPUTS, HIDDEN = 3, 2, 2
SIZE = INPUTS * HIDDEN + HIDDEN * CLASSES


def model(params: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(x @ params[: INPUTS * HIDDEN].reshape(INPUTS, HIDDEN)) @ params[
        INPUTS * HIDDEN :
    ].reshape(HIDDEN, CLASSES)


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Samples, Samples]:
    draws = generator(0, "tests", "anticipate")
    start, params = torch.randn(2, SIZE, generator=draws, dtype=dtype)
    clean = Samples(
        torch.randn(5, INPUTS, generator=draws, dtype=dtype), torch.tensor([0, 1, 2, 0, 1])
    )
    return (
        start,
        params.requires_grad_(),
        clean,
        Samples(clean.x + 1, torch.tensor([2, 2, 2, 0, 1])),
    )


def reference(
    start: Any, params: Any, x: Any, y: Any, odds: _Odds, rounds: int, rate: float
) -> list[Any]:
    """The models of the coming rounds, the gradient of the cross-entropy written out."""

    def honest(vector: Any) -> Any:
        first, second = (
            vector[: INPUTS * HIDDEN].reshape(INPUTS, HIDDEN),
            vector[INPUTS * HIDDEN :].reshape(HIDDEN, CLASSES),
        )
        hidden = np.tanh(x @ first)
        likely = np.exp(hidden @ second)
        error = (likely / likely.sum(1, keepdims=True) - np.eye(CLASSES)[y]) / len(y)
        back = (error @ second.T) * (1 - hidden**2)
        return -rate * np.concatenate([(x.T @ back).ravel(), (hidden.T @ error).ravel()])

    found = [
        start + odds.server_lr * (odds.share * (params - start) + (1 - odds.share) * honest(start))
    ]
    for _ in range(rounds):
        found.append(found[-1] + odds.server_lr * honest(found[-1]))
    return found


def seen(start: Tensor) -> TrainView:
    """A client's view of this global model."""
    return replace(train_view("table"), params=start, model=model)


@pytest.mark.parametrize("odds", [_Odds(0.1, 1.0), _Odds(1.0, 0.5), _Odds(0.0, 1.0)])
def test_the_models_of_the_coming_rounds(odds: _Odds) -> None:
    start, params, clean, _ = case()
    found = list(_models(seen(start), params, clean, odds, 3, 0.7))
    wanted = reference(
        start.numpy(), params.detach().numpy(), clean.x.numpy(), clean.y.numpy(), odds, 3, 0.7
    )
    assert len(found) == 4
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other, rtol=1e-12)


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_the_gradient_goes_through_the_simulated_updates(rounds: int) -> None:
    """Against finite differences; with the updates taken as constants it would be another."""
    start, params, clean, poisoned = case()

    def loss(vector: Tensor) -> Tensor:
        way = _models(seen(start), vector, clean, _Odds(0.5, 1.0), rounds, 0.7)
        return torch.stack(
            [cross_entropy(model(after, poisoned.x), poisoned.y) for after in way]
        ).sum()

    assert torch.autograd.gradcheck(loss, params)
    (grad,) = torch.autograd.grad(loss(params), params)
    way = [
        after.detach().requires_grad_()
        for after in _models(seen(start), params, clean, _Odds(0.5, 1.0), rounds, 0.7)
    ]
    constant = sum(
        0.5 * torch.autograd.grad(cross_entropy(model(after, poisoned.x), poisoned.y), after)[0]
        for after in way
    )
    assert torch.allclose(grad, torch.as_tensor(constant)) is (rounds == 0)


def row(view: TrainView, **params: Any) -> Tensor:
    attack = anticipate(**params)
    assert attack.train is not None
    return attack.train(_Odds(0.3, 1.0), view)


def test_what_is_anticipated_changes_the_update() -> None:
    given = train_view("table")
    rows = [row(given, rounds=rounds) for rounds in (0, 1, 2)] + [row(given, rate=0.2)]
    assert not any(torch.allclose(rows[i], rows[j]) for i in range(4) for j in range(i))


def test_honest_updates_come_from_clean_batches_and_losses_from_poisoned_ones() -> None:
    """As they are: the model call normalizes."""
    seen: list[tuple[Tensor, bool]] = []
    given = train_view("image", lambda x, y, index, draws: (1 - x, 0 * y))

    def recording(params: Tensor, x: Tensor) -> Tensor:
        step = given.steps[len(seen) // 6]
        assert torch.equal(x, step.clean.x) or torch.equal(x, step.poisoned.x)
        seen.append((params, torch.equal(x, step.clean.x)))
        return given.model(params, x)

    row(replace(given, model=recording), rounds=2)
    # a simulated update, then the loss after it
    assert [clean for _, clean in seen] == [True, False] * 9
    # the first honest update starts from the global model
    assert torch.equal(seen[0][0], given.params)


def test_the_share_is_that_of_the_round() -> None:
    attack, view = anticipate(), attack_view("image")
    assert attack.init is not None and attack.plan is not None
    before = attack.init(view)
    assert before == (0.3, 1.0)
    assert attack.plan(before, replace(view, share=0.2, server_lr=0.5)) == (0.2, 0.5)
