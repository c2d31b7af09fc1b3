"""Local steps of SGD by all clients of a block of :mod:`dense` networks, in one call.

The derivatives are those of :mod:`dense` and a step is that of :func:`backstop.platform.optimizers
.sgd`, operation for operation: the bits are those of single steps. Between them nothing has to be
asked of the interpreter, whose lock another thread may have.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backstop.platform.training.dense import LayerPlace, Neighbors, gradients_of, parts_of
from backstop.platform.training.lock_free import lock_free

STEPS_IN_A_CALL = 8  # steps in a call, whose samples lie ready


class ManySteps(NamedTuple):
    """What s steps of k clients are made of; b is a multiple of LINE."""

    x: Tensor  # (s, k, b, f)
    y: Tensor  # (s, k, b)
    weight: Tensor  # (s, k, b): of each sample in its client's loss, 0 where there is none
    counts: Tensor  # (s, k): samples of each client


class Moving(NamedTuple):
    """The vectors (k, length) that k clients move."""

    params: Tensor
    start: Tensor | None  # (length,) from which all are moved; None: they go on from where they are
    places: list[LayerPlace]  # of the layers


@lock_free
def take_all_steps(
    samples: tuple[Tensor, Tensor, Tensor, Tensor],
    groups: list[list[Neighbors]],
    factors: list[list[Tensor | None]],
    moving: tuple[Tensor, Tensor | None, list[LayerPlace]],
    velocity: Tensor | None,
    rates: tuple[float, float, float, float],
    total: Tensor,
) -> Tensor | None:
    """Take the steps of :class:`ManySteps` with the vectors of :class:`Moving`. Each step has its
    ``groups`` and ``factors``, as :func:`dense.take_gradients` has them. The ``rates`` are learning
    rate, momentum and weight decay, and a factor on the first. The losses of all samples are added
    to ``total`` (k,); the velocity (k, length) comes back, None before the first step.
    """
    params, start, places = moving
    if start is not None:
        params.copy_(start)
    grad = torch.zeros_like(params)  # and so it stays between the layers
    parts, grads = parts_of(params, places), parts_of(grad, places)
    lr, momentum, weight_decay, pace = rates
    x, y, weight, counts = samples
    paces = pace * (counts > 0).float().unsqueeze(2)  # a client without a batch stays where it is
    for step in range(len(groups)):
        live = groups[step][-1][1]
        batch = x[step, :live], y[step, :live], weight[step, :live]
        losses = gradients_of(batch, groups[step], parts, grads, factors[step])
        total[:live].add_(losses * counts[step, :live])
        moved, change = params[:live], grad[:live]
        if weight_decay != 0.0:
            change.add_(moved, alpha=weight_decay)
        if momentum != 0.0:
            if velocity is None:
                velocity = change.clone()
            else:
                velocity = velocity[:live].mul_(momentum).add_(change)
            change = velocity
        moved.addcmul_(change, paces[step, :live], value=-lr)
    return velocity
