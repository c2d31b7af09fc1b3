"""MASA: updates whose model unlearns clean data unusually fast are left out.

w_i = w + λ u_i + (1 - λ) ū,   ū = Σ_j n_j u_j / Σ_j n_j
θ_i,0 = w_i,   θ_i,t+1 = θ_i,t + η · momentum of clip(∇L(θ_i,t; B_t), 20) on batches B_t of D_0
ℓ_i = Σ_epochs mean_t L(θ_i,t; B_t)
g = mean of u_i over {i : (ℓ_i - median(ℓ)) / std(ℓ) < δ}

Shapes: rows (n, d) → (n, d); the weights of the others become 0.

Source: J. Xu, Z. Zhang, R. Hu, "Identify Backdoored Model in Federated Learning via Individual
Unlearning", WACV 2025, pre-unlearning model fusion, individual unlearning and the median deviation
score; λ = 0.7, δ = 1, five epochs of SGD with η = 0.001 and momentum 0.9 in batches of 64, and
gradients clipped to a norm of 20 are those of the authors' published code.

Deviations: that code trains with BatchNorm statistics of the batch, here they stay as they are. The
batches are the same for all rows, there drawn anew for each. Its root set is 500 samples of
CIFAR-10, forty steps of ascent; a smaller one takes fewer steps, and ℓ then is mostly the loss of
w_i itself: more ``epochs`` make up for it. Rows whose loss is not finite are left out, and where
all are, all weights stay. Where all losses are equal all rows are kept.

Known to fail: on a model that has learned little the losses of honest models differ by more than a
plain backdoor adds.

Checked: fusion, ascent, its loss, the score, which is one-sided, and the mean by sample counts
against the authors' code (MASA, src/aggregation.py and the defaults of src/federated.py at
72a4b74). The paper's text was out of reach.

Needs: model calls, and a root set with labels.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> given = updates(torch.tensor([[0.1, -0.1], [0.2, -0.1], [0.1, -0.2], [5.0, -5.0]]))
>>> after, _ = masa().apply(given, None, server_view())
>>> after.weight.tolist()
[1.0, 1.0, 1.0, 0.0]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform import robust
from backstop.platform.contract import Defense, Samples, ServerView, Updates, select
from backstop.platform.optimizers import sgd
from backstop.platform.params import Range
from backstop.platform.remedies.deviations import MARGIN, deviations

VERSION = 1
NEEDS = ("model", "root")
# the law adds one number to all weights of a linear model, which changes no probability
EXEMPT = ("adversarial",)

_MOMENTUM = 0.9
_LONGEST = 20.0  # gradient


def _batches(view: ServerView, epochs: int, batch: int) -> list[list[Samples]]:
    """For each epoch the root set in an order of its own."""
    root = view.root
    orders = [torch.randperm(len(root.y), generator=view.generator) for _ in range(epochs)]
    return [
        [Samples(root.x[part], root.y[part]) for part in order.to(root.y.device).split(batch)]
        for order in orders
    ]


def _unlearned(
    view: ServerView,
    start: Tensor,
    epochs: Sequence[Sequence[Samples]],
    lr: float,
) -> float:
    """The loss on the way up from parameters (d,): the sum over epochs of their mean."""
    optimizer = sgd(lr=lr, momentum=_MOMENTUM)
    params = start.clone()
    velocity = optimizer.start(params)
    total = 0.0
    for epoch in epochs:
        for x, y in epoch:
            point = params.detach().requires_grad_()
            loss = cross_entropy(view.model(point, x), y)
            (gradient,) = torch.autograd.grad(loss, point)
            shorter = (_LONGEST / gradient.norm()).clamp(max=1.0)
            velocity = optimizer.step(params, -gradient * shorter, velocity, 1.0)
            total += loss.item() / len(epoch)
    return total


def masa(
    *,
    fusion: Annotated[
        float,
        Range(0, 1, search=(0.3, 1.0)),
        "share of the row's own update in the model that unlearns, λ",
    ] = 0.7,
    radius: Annotated[
        float,
        Range(0, 1e3, search=(0.5, 3.0)),
        "score that is no longer kept, in standard deviations, δ",
    ] = 1.0,
    epochs: Annotated[
        int, Range(1, 100, search=(1, 50)), "passes of the ascent over the root set"
    ] = 5,
    lr: Annotated[
        float,
        Range(0, 10, low_open=True, search=(1e-4, 0.1), log=True),
        "learning rate of the ascent, η",
    ] = 0.001,
    batch: Annotated[
        int, Range(1, 10_000, log=True, search=(8, 128)), "samples in a step of the ascent"
    ] = 64,
) -> Defense:
    """The rows whose model does not unlearn unusually fast keep their weight."""

    def filtered(updates: Updates, view: ServerView) -> Updates:
        rows, steps = updates.rows, _batches(view, epochs, batch)
        share = updates.weight.double() / updates.weight.double().sum()
        shared = view.params + robust.mix((1 - fusion) * share.unsqueeze(0), rows)[0]
        losses = [_unlearned(view, shared + fusion * row, steps, lr) for row in rows]
        loss = torch.tensor(losses, dtype=torch.float64)
        sound = loss.isfinite()
        if not sound.any():
            return updates
        kept = sound.clone()
        kept[sound] = deviations(loss[sound]) <= radius * MARGIN
        return select(updates, kept)

    return Defense(apply=lambda updates, state, view: (filtered(updates, view), state))
