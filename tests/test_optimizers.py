"""The whole-vector optimizers against torch.optim, and a block against its rows one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.platform.optimizers import OPTIMIZERS, step_decay
from backstop.platform.params import schema

STEPS, SIZE = 10, 17
CASES: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {}),
    ("sgd", {"lr": 0.1, "momentum": 0.9}),
    ("sgd", {"lr": 0.1, "weight_decay": 0.01}),
    ("sgd", {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.3}),
    ("adam", {}),
    ("adam", {"lr": 0.1, "weight_decay": 0.02}),
    ("adam", {"lr": 0.03, "beta1": 0.5, "beta2": 0.9, "eps": 1e-3}),
    ("adam", {"lr": 0.03, "beta1": 0.0, "beta2": 0.0}),
]


def draws(*shape: int) -> Tensor:
    """Normal numbers, the same in every test."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def theirs(name: str, given: dict[str, Any], start: Tensor, grads: Tensor) -> Tensor:
    """The parameters after torch.optim's steps."""
    full = {key: parameter.default for key, parameter in schema(OPTIMIZERS[name]).items()} | given
    params = start.clone().requires_grad_()
    if name == "adam":
        full["betas"] = (full.pop("beta1"), full.pop("beta2"))
    optimizer: torch.optim.Optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name](
        [params], **full
    )
    for grad in grads:
        params.grad = grad.clone()
        optimizer.step()
    return params.detach()


def ours(
    name: str, given: dict[str, Any], start: Tensor, grads: Tensor, rates: list[Tensor | float]
) -> Tensor:
    """The parameters after our steps."""
    optimizer = OPTIMIZERS[name](**given)
    params = start.clone()
    state = optimizer.start(params)
    for grad, rate in zip(grads, rates, strict=True):
        state = optimizer.step(params, grad.clone(), state, rate)
    return params


@pytest.mark.parametrize(("name", "given"), CASES)
def test_ten_steps_are_those_of_torch(name: str, given: dict[str, Any]) -> None:
    start, grads = draws(SIZE), draws(STEPS, SIZE)
    expected = theirs(name, given, start, grads)
    torch.testing.assert_close(
        ours(name, given, start, grads, [1.0] * STEPS), expected, rtol=2e-6, atol=2e-6
    )
    assert not torch.equal(expected, start)


@pytest.mark.parametrize(("name", "given"), CASES)
def test_a_block_is_its_rows(name: str, given: dict[str, Any]) -> None:
    starts, grads = draws(3, SIZE), draws(STEPS, 3, SIZE)
    together = ours(name, given, starts, grads, [torch.ones(3, 1)] * STEPS)
    alone = torch.stack(
        [ours(name, given, starts[k], grads[:, k], [1.0] * STEPS) for k in range(3)]
    )
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "given"), CASES)
def test_a_row_without_batches_left_stands_still(name: str, given: dict[str, Any]) -> None:
    starts, grads = draws(3, SIZE), draws(STEPS, 3, SIZE)
    rates: list[Tensor | float] = [
        torch.tensor([[1.0], [float(step < 4)], [1.0]]) for step in range(STEPS)
    ]
    together = ours(name, given, starts, grads, rates)
    short = ours(name, given, starts[1], grads[:4, 1], [1.0] * 4)
    torch.testing.assert_close(together[1], short, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "given"), CASES)
def test_a_rate_scales_the_step(name: str, given: dict[str, Any]) -> None:
    start, grads = draws(SIZE), draws(1, SIZE)
    whole, half = (ours(name, given, start, grads, [rate]) - start for rate in (1.0, 0.5))
    torch.testing.assert_close(half, whole / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("milestones", "factor"), [((2, 4, 6, 8), 0.1), ((10,), 0.5), ((), 0.5)])
def test_a_rate_falls_as_with_the_scheduler_of_torch(
    milestones: tuple[int, ...], factor: float
) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(milestones), factor)
    for epoch in range(12):
        assert step_decay(epoch, milestones, factor) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
