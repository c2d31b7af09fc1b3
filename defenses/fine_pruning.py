"""Fine-pruning: take out the units that clean inputs leave asleep, then fine-tune.

a_j = mean_x |φ_j(x)|,  x from the root set
W_{:,j} <- 0  in ascending order of a_j, while the accuracy on the root set falls by at most ε
w <- w fine-tuned on the root set, with W_{:,j} = 0 for the units taken out

Shapes: params (d,) → (d,), once after the last round; rows pass unchanged. φ(x) (h,) is what the
last linear layer, of weight W (classes, h), is given.

Source: K. Liu, B. Dolan-Gavitt, S. Garg, "Fine-Pruning: Defending Against Backdooring Attacks on
Deep Neural Networks", RAID 2018, sections on the pruning defense and on fine-pruning.

Deviations: the paper prunes channels of the last convolution; here the inputs of the last linear
layer are pruned, which every model has, by mean magnitude, for rectified units the paper's mean.
The paper leaves the threshold to the defender; ε of the samples, rounded down, is what pruning may
cost. The first unit that costs more ends the pruning, and one unit always stays. Fine-tuning is the
local training of an honest client, with the same order of batches each time, and the columns go
back to zero after each. A repair that is not finite is given up.

Checked: order and stopping rule against public re-implementations; the paper's text was out of
reach, so what it leaves to the defender is remembered.

Needs: a root set; the model.

Example:
>>> import torch
>>> units, weight = (
...     torch.tensor([[9.0, 0.0, 1.0], [0.0, 8.0, 1.0]]),
...     torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]]),
... )
>>> # unit 2 is weak and not needed; the next one is
>>> _asleep(units, torch.tensor([0, 1]), weight, torch.zeros(2), 0.0).tolist()
[2]
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from backstop.platform.contract import Defense, ServerView
from backstop.platform.params import Range
from backstop.platform.robust import floor_count

VERSION = 2
NEEDS = ("root", "model")
TAKES = "row"
REPAIRS = True
# rows pass unchanged: what the defense changes comes after the last round
EXEMPT = ("adversarial",)


def fine_pruning(
    *,
    tolerance: Annotated[
        float, Range(0, 1, search=(0, 0.2)), "accuracy on the root set that pruning may cost, ε"
    ] = 0.05,
    epochs: Annotated[
        int,
        Range(0, 1000, search=(0, 20)),
        "times that the model trains on the root set as a client does",
    ] = 5,
) -> Defense:
    """The final model, pruned and fine-tuned."""

    def finish(_: Any, view: ServerView) -> Tensor:
        with torch.no_grad():
            units = view.features(view.params, view.root.x)
        weight, *rest = (slot.of(view.params) for slot in view.head)
        bias = rest[0] if rest else weight.new_zeros(len(weight))
        asleep = _asleep(units, view.root.y, weight, bias, tolerance)
        params = _without(view.params, view, asleep)
        for _epoch in range(epochs):
            params = _without(params + view.train(params, view.root), view, asleep)
        return params if params.isfinite().all() else view.params.clone()

    return Defense(finish=finish)


def _asleep(units: Tensor, y: Tensor, weight: Tensor, bias: Tensor, tolerance: float) -> Tensor:
    """Numbers of the units to take out: the least active ones, as many as the tolerance allows."""
    order = units.abs().mean(0).argsort(stable=True)

    def correct(count: int) -> int:
        left = units.index_fill(1, order[:count], 0.0)  # a unit at zero is a column at zero
        return int(((left @ weight.t() + bias).argmax(1) == y).sum())

    least = correct(0) - floor_count(tolerance, len(y))
    count = 0
    while count + 1 < len(order) and correct(count + 1) >= least:
        count += 1
    return order[:count]


def _without(params: Tensor, view: ServerView, units: Tensor) -> Tensor:
    """The parameters with the units' columns of the last linear layer at zero."""
    start, (classes, width) = view.head[0].start, view.head[0].shape
    params = params.clone()
    params[start : start + classes * width].view(classes, width)[:, units] = 0.0
    return params
