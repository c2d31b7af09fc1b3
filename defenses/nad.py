"""Neural attention distillation: fine-tune the model so that it attends to what a fine-tuned copy
attends to.

teacher T = w fine-tuned on the root set
student S, from w:  min  mean_x [ CE(f_S(x), y) + β ‖A(φ_T(x)) - A(φ_S(x))‖₂ ]
A(φ) = (φ_1², …, φ_h²) / ‖(φ_1², …, φ_h²)‖₂

Shapes: params (d,) → (d,), once after the last round; rows pass unchanged. φ(x) (h,) is what the
last linear layer is given.

Source: Y. Li, X. Lyu, N. Koren, L. Lyu, B. Li, X. Ma, "Neural Attention Distillation: Erasing
Backdoor Triggers from Deep Neural Networks", ICLR 2021, section on the method; the square is its
attention function with p = 2.

Deviations: the paper's attention is a map over the pixels of a group of convolutions, summed over
channels; here it is one vector over the units before the last linear layer, which every model has
and where there are no pixels left. So β is not theirs: the authors' code, as it is published today,
has 500, 1,000 and 1,000 on its three groups, on a mean of squares of the difference of two maps,
each the sum of squares over the channels at length 1. The teacher trains as an honest client does,
several times with the same order of batches; the student by gradient descent with momentum 0.9 in
batches of 64 without weight decay, and with BatchNorm statistics as they are. A repair that is not
finite is given up.

Needs: a root set; the model.

Checked: β and the attention function against the authors' published code.

Example:
>>> import torch
>>> _attention(torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]]))  # squares 1, 4, 0 over √17
tensor([[0.2425, 0.9701, 0.0000],
        [0.0000, 0.0000, 0.0000]])
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from backstop.platform.contract import Defense, ServerView
from backstop.platform.optimizers import sgd
from backstop.platform.params import Range

VERSION = 1
NEEDS = ("root", "model")
TAKES = "row"
REPAIRS = True
# rows pass unchanged: what the defense changes comes after the last round
EXEMPT = ("adversarial",)
BATCH = 64


def nad(
    *,
    beta: Annotated[
        float, Range(0, 1e6, search=(1, 100), log=True), "weight of the distillation, β"
    ] = 10.0,
    teacher: Annotated[
        int,
        Range(1, 1000, search=(1, 20)),
        "times that the teacher trains on the root set as a client does",
    ] = 10,
    epochs: Annotated[
        int, Range(1, 1000, search=(1, 50)), "passes of the student over the root set"
    ] = 20,
    lr: Annotated[
        float,
        Range(0, 100, low_open=True, search=(1e-3, 0.5), log=True),
        "learning rate of the student",
    ] = 0.05,
) -> Defense:
    """The final model, distilled from a fine-tuned copy."""

    def finish(_: Any, view: ServerView) -> Tensor:
        guide, root = view.params, view.root
        for _epoch in range(teacher):
            guide = guide + view.train(guide, root)
        with torch.no_grad():
            taught = _attention(view.features(guide, root.x))
        params = view.params.clone()
        optimizer = sgd(lr=lr, momentum=0.9)
        velocity = optimizer.start(params)
        for _epoch in range(epochs):
            order = torch.randperm(len(root.y), generator=view.generator).to(root.y.device)
            for batch in order.split(BATCH):
                x, y = root.x[batch], root.y[batch]
                values = params.detach().requires_grad_()
                apart = _attention(view.features(values, x)) - taught[batch]
                loss = cross_entropy(view.model(values, x), y) + beta * apart.norm(dim=1).mean()
                (gradient,) = torch.autograd.grad(loss, values)
                velocity = optimizer.step(params, gradient, velocity, 1.0)
        return params if params.isfinite().all() else view.params.clone()

    return Defense(finish=finish)


def _attention(units: Tensor) -> Tensor:
    """Squares (b, h) of the units, each sample's of length 1; zero where all units are."""
    return normalize(units.square(), dim=1)
