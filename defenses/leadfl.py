"""LeadFL: honest clients are kept from where the loss curves, so that what a round has poisoned is
unlearned in the next ones.

after each local step but a round's first, for each weight tensor l:
    r_l = (θ_i - θ_{i-1}) - g_{i-1} - η 1,   θ <- θ - η clip(α r_l / ‖r_l‖, q)

θ_i is the model after the step and g_{i-1} the gradient of the one before; r stands for I - ηH at
the diagonal. clip bounds each value by q.

Shapes: delta, gradients (d,) → delta (d,); biases stay as they are.

Source: C. Zhu, S. Roos, L. Y. Chen, "LeadFL: Client Self-Defense against Model Poisoning in
Federated Learning", ICML 2023, the regularization of local training and the authors' code, whose
template has α = 0.4 and q = 0.2.

Deviations: the rate η of the correction is a parameter; clients' views have no learning rate. The
authors' code puts the correction on top of the gradient of the loss, clips both together and steps
once more with them, momentum included; here the correction alone is clipped and taken. Theirs
begins anew in each epoch, here in each round. The decay of α over rounds, off by default there, is
left out. Weight tensors are those of more than one side, where theirs have "weight" in their names.

Checked: the form of r, the norms by tensor, clipping by value, α and q against the authors' code
(chaoyitud/LeadFL, ``fltk/core/client.py``). What r stands for in the paper is remembered.

Needs: honest clients that train this way.

Example:
>>> import torch
>>> from backstop.platform.contract import Slot
>>> # r = (3, 4) - (0, 0) - (0, 0) is 5 long; α r / ‖r‖ is clipped at 0.5
>>> _correction(torch.tensor([3.0, 4.0]), torch.zeros(2), (Slot("w", 0, (1, 2)),), 0.0, 1.0, 0.5)
tensor([0.5000, 0.5000])
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import ClientView, Defense, Local, LocalStep, Slot
from backstop.platform.params import Range

VERSION = 1
NEEDS = ("clients",)
TAKES = "row"
EXEMPT = ("adversarial",)  # rows pass unchanged: what the defense changes comes before them


class _Memory(NamedTuple):
    """What a client has in mind between two steps."""

    layout: tuple[Slot, ...]
    grad: Tensor | None = None  # (d,) of the step before; None before the first


def leadfl(
    *,
    weight: Annotated[float, Range(0, 100, search=(0.01, 10)), "of the correction, α"] = 0.4,
    bound: Annotated[
        float, Range(0, 100, low_open=True, search=(0.01, 1)), "of each value of it, q"
    ] = 0.2,
    rate: Annotated[
        float, Range(0, 100, low_open=True, log=True, search=(1e-3, 1)), "of the correction, η"
    ] = 0.01,
) -> Defense:
    """Local steps with a correction; the server is left alone."""

    def prepare(view: ClientView) -> _Memory:
        return _Memory(view.layout)

    def correct(memory: _Memory, step: LocalStep) -> tuple[Tensor, _Memory]:
        after = memory._replace(grad=step.grad)
        if memory.grad is None:
            return step.delta, after
        moved = step.delta - step.before
        found = _correction(moved, memory.grad, memory.layout, rate, weight, bound)
        return step.delta - rate * found, after

    return Defense(local=Local(prepare=prepare, step=correct))


def _correction(
    moved: Tensor,
    grad: Tensor,
    layout: tuple[Slot, ...],
    rate: float,
    weight: float,
    bound: float,
) -> Tensor:
    """clip(α r / ‖r‖, q) of each weight tensor, (d,); 0 elsewhere."""
    found = torch.zeros_like(moved)
    for slot in layout:
        if len(slot.shape) > 1:
            r = moved[slot.span] - grad[slot.span] - rate
            length = r.norm()
            if length > 0:
                found[slot.span] = (weight * r / length).clamp(-bound, bound)
    return found
