"""A small network that makes a trigger of each image, and how such a network is trained: the same
for all attacks with one; on what loss is a plug-in's.

T_φ(x) = tanh(c_3([h, up(relu(c_2(h)))])),   h = relu(c_1(x))

c_1, c_2, c_3 are 3 x 3 convolutions: to 8 channels, to 16 at half the resolution, and from both
side by side to the channels of the trigger; up repeats the nearest pixel. Images of any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from backstop.platform.optimizers import Optimizer

Weights = tuple[Tensor, ...]  # φ: weight and bias of each layer, one after another
_WIDE, _DEEP, _SIDE = 8, 16, 3


def shapes(channels: int, extra: int = 0) -> tuple[tuple[int, ...], ...]:
    """Of the weights for images of that many channels; ``extra`` more of the input are no part of
    the trigger.
    """
    first = (_WIDE, channels + extra, _SIDE, _SIDE)
    second = (_DEEP, _WIDE, _SIDE, _SIDE)
    third = (channels, _WIDE + _DEEP, _SIDE, _SIDE)
    return first, (_WIDE,), second, (_DEEP,), third, (channels,)


def drawn(
    shape: tuple[int, ...],
    draws: torch.Generator,
) -> Tensor:
    """Initial weights of variance 2 / fan-in (K. He et al., ICCV 2015), biases zero."""
    if len(shape) == 1:
        return torch.zeros(shape)
    return torch.randn(shape, generator=draws) * math.sqrt(2 / math.prod(shape[1:]))


def perturbation(
    weights: Weights,
    x: Tensor,
) -> Tensor:
    """T_φ(x) in [-1, 1] of images (b, C, H, W)."""
    wide = conv2d(x, weights[0], weights[1], padding=1).relu()
    deep = conv2d(wide, weights[2], weights[3], stride=2, padding=1).relu()
    both = torch.cat([wide, interpolate(deep, x.shape[-2:])], 1)  # to the nearest pixel
    return conv2d(both, weights[4], weights[5], padding=1).tanh()


def descended(
    weights: Weights,
    losses: Iterable[Callable[[Weights], Tensor]],
    optimizer: Optimizer,
) -> Weights:
    """The weights after a step down each loss, one after another.

    >>> from backstop.platform.optimizers import sgd
    >>> one = torch.ones(1)
    >>> descended((one,), [lambda weights: weights[0].sum()] * 2, sgd(lr=0.25))
    (tensor([0.5000]),)
    """
    weights = tuple(weight.clone() for weight in weights)
    memory = [optimizer.start(weight) for weight in weights]
    for loss in losses:
        leaves = tuple(weight.clone().requires_grad_() for weight in weights)
        grads = torch.autograd.grad(loss(leaves), leaves)
        for index, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
            direction = grad.nan_to_num(0, 0, 0)  # none where the model has diverged
            memory[index] = optimizer.step(weight, direction, memory[index], 1.0)
    return weights
