"""Optimizers of local training, on whole vectors: a step is a few operations on (d,) or (k, d),
whatever the model.

Every client builds its optimizer anew each round, as in FedAvg. The formulas are those of
``torch.optim``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from backstop.platform.params import Range

if TYPE_CHECKING:  # a spec names an optimizer and checks its parameters without torch
    from torch import Tensor


class Optimizer(NamedTuple):
    """``start(params)`` → state; ``step(params, grad, state, rate)`` changes params in place and
    may overwrite grad. A state is None, a tensor of the parameters' shape, or a tuple of such and
    numbers.

    ``rate`` scales the step: a number, or (k, 1) with 0 for the rows of a block that have no batch
    left.
    """

    start: Callable[[Tensor], Any]
    step: Callable[[Tensor, Tensor, Any, Tensor | float], Any]
    # learning rate, momentum and weight decay, where the steps are those of SGD
    rates: tuple[float, float, float] | None = None


def sgd(
    *,
    lr: Annotated[
        float,
        Range(
            0,
            1e6,
            low_open=True,
            search=(1e-3, 1.0),
            log=True,
        ),
        "learning rate",
    ] = 0.05,
    momentum: Annotated[float, Range(0, 1, high_open=True), "heavy-ball momentum"] = 0.0,
    weight_decay: Annotated[float, Range(0, 1e3), "L2 penalty, added to the gradient"] = 0.0,
) -> Optimizer:
    """Stochastic gradient descent with momentum (Polyak 1964), as ``torch.optim.SGD``."""

    def step(
        params: Tensor,
        grad: Tensor,
        velocity: Tensor | None,
        rate: Tensor | float,
    ) -> Tensor | None:
        if weight_decay:
            grad.add_(params, alpha=weight_decay)
        if momentum:
            velocity = grad.clone() if velocity is None else velocity.mul_(momentum).add_(grad)
            grad = velocity
        if isinstance(rate, float | int):
            params.add_(grad, alpha=-lr * rate)
        else:
            params.addcmul_(grad, rate, value=-lr)
        return velocity

    return Optimizer(lambda params: None, step, rates=(lr, momentum, weight_decay))


def adam(
    *,
    lr: Annotated[
        float,
        Range(
            0,
            1e6,
            low_open=True,
            search=(1e-5, 1e-1),
            log=True,
        ),
        "learning rate",
    ] = 1e-3,
    beta1: Annotated[float, Range(0, 1, high_open=True), "decay of the first moment"] = 0.9,
    beta2: Annotated[float, Range(0, 1, high_open=True), "decay of the second moment"] = 0.999,
    eps: Annotated[
        float, Range(0, 1, low_open=True), "added to the root of the second moment"
    ] = 1e-8,
    weight_decay: Annotated[float, Range(0, 1e3), "L2 penalty, added to the gradient"] = 0.0,
) -> Optimizer:
    """Adam (Kingma and Ba, ICLR 2015, algorithm 1), as ``torch.optim.Adam``."""

    def step(
        params: Tensor,
        grad: Tensor,
        state: tuple[Tensor, Tensor, int],
        rate: Tensor | float,
    ) -> tuple[Tensor, Tensor, int]:
        first, second, count = state
        count += 1
        if weight_decay:
            grad.add_(params, alpha=weight_decay)
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = second.sqrt().div_((1 - beta2**count) ** 0.5).add_(eps)
        direction = first / root
        params.add_(direction * rate, alpha=-lr / (1 - beta1**count))
        return first, second, count

    def start(params: Tensor) -> tuple[Tensor, Tensor, int]:
        return params.new_zeros(params.shape), params.new_zeros(params.shape), 0

    return Optimizer(start=start, step=step)


def first_rows(state: Any, count: int) -> Any:
    """The state (k, d) of a block's first ``count`` rows."""
    if isinstance(state, tuple):
        return tuple(first_rows(part, count) for part in state)
    return state[:count] if hasattr(state, "shape") else state


def step_decay(
    epoch: int,
    milestones: Sequence[int],
    factor: float,
) -> float:
    """What is left of a learning rate in an epoch, counted from 0: at each milestone it falls by
    the factor, as with ``torch.optim.lr_scheduler.MultiStepLR``.

    >>> [step_decay(epoch, (1, 3), 0.5) for epoch in range(4)]
    [1.0, 0.5, 0.5, 0.25]
    """
    return factor ** sum(epoch >= milestone for milestone in milestones)


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {"sgd": sgd, "adam": adam}
