"""A3FL: a patch that is trained against the global model and against what that model would be if it
had unlearned the patch.

δ = argmin_δ E[ℓ(G(x ⊕ δ), y*) + λ s ℓ(G'(x ⊕ δ), y*)],   s = cos(G', G)
G' = argmin_G' E[ℓ(G'(x ⊕ δ), y)],  from G
x' = x ⊕ δ = (1 - w) ⊙ x + w ⊙ δ,   y' = y*,   w = 1 on a square near the upper left corner

A step is δ <- clamp(δ - α sign ∇_δ, 0, 1).

Shapes: x (b, C, H, W) in [0, 1], y (b,), δ (C, size, size), cut to the image where that is smaller;
G, G' (d,).

Source: H. Zhang, J. Jia, J. Chen, L. Lin, D. Wu, "A3FL: Adversarially Adaptive Backdoor Attacks to
Federated Learning", NeurIPS 2023, section on the adversarially adaptive trigger.

As published: 5 x 5 pixels from row 2 and column 2 on (moved into smaller images), gray at first and
kept from round to round, λ = 0.01, a quarter of each batch poisoned; G' by five passes of SGD with
rate 0.01, momentum 0.9 and weight decay 0.0005.

Deviations: the published training goes 200 times through a client's data in each round, with steps
of 0.01 in normalized pixels, about 0.002 in [0, 1], and a new G' in each of these passes but the
first. Here a plan draws at most 128 samples of the malicious clients and takes ``steps`` larger
steps on batches of at most 64 of them, with a new G' each ``every`` steps, the first one included;
``steps=200, rate=0.002, every=1`` is closest. s is taken over all parameters; published is the mean
over convolutional layers of the cosines of gradients. G' is trained with the running statistics of
BatchNorm, which a model call has. Published figures count samples of the target class, for which
nothing need happen; here they are left out.

Checked: patch, place, passes, steps, weights and s against the authors' code (attacker.py and its
configuration).

Cost: in each attacked round ``2 * steps`` model calls on 64 samples and ``ceil(steps / every) *
epochs * 4`` on 32, forward and backward.

Example: white is class 1 to the model, so a step towards class 1 makes the patch, here the only
pixel, whiter.
>>> import torch
>>> one, gray = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1), 0.5)
>>> _step(gray, one, torch.tensor([1]), [(1.0, lambda x: torch.cat([-x, x], 1).flatten(1))], 0.01)
tensor([[[0.5100]]])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from backstop.platform.contract import Attack, AttackView, Samples
from backstop.platform.optimizers import sgd
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor, patch, target_labels, with_square
from backstop.platform.threats.parameters import Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True
_SAMPLES, _BATCH, _SMALL_BATCH = 128, 64, 32
_CORNER = (2, 2)  # uppermost row and leftmost column of the patch


def _put(x: Tensor, pixels: Tensor) -> Tensor:
    return with_square(x, pixels, *_CORNER)


def _unlearned(view: AttackView, stamped: Samples, epochs: int) -> Tensor:
    """G' (d,): the global model trained on samples with the patch and their true labels."""
    optimizer, params = sgd(lr=0.01, momentum=0.9, weight_decay=5e-4), view.params.clone()
    memory = optimizer.start(params)
    for _ in range(epochs):
        order = torch.randperm(len(stamped.y), generator=view.generator).to(stamped.y.device)
        for batch in order.split(_SMALL_BATCH):
            leaf = params.clone().requires_grad_()
            loss = cross_entropy(view.model(leaf, stamped.x[batch]), stamped.y[batch])
            (grad,) = torch.autograd.grad(loss, leaf)
            memory = optimizer.step(params, grad, memory, 1.0)
    return params


def _step(
    pixels: Tensor,
    x: Tensor,
    goal: Tensor,
    models: Sequence[tuple[float, Callable[[Tensor], Tensor]]],
    rate: float,
) -> Tensor:
    """One step of the patch down the weighted losses of the models."""
    leaf = pixels.clone().requires_grad_()
    stamped = _put(x, leaf)
    losses = [weight * cross_entropy(model(stamped), goal) for weight, model in models]
    (grad,) = torch.autograd.grad(torch.stack(losses).sum(), leaf)
    # a model that has diverged shows no direction
    return (pixels - rate * grad.nan_to_num(0, 0, 0).sign()).clamp(0, 1)


def a3fl(
    *,
    target: Target = 0,
    size: Annotated[int, Range(1, 10**4, search=(1, 8)), "side of the patch in pixels"] = 5,
    steps: Annotated[
        int, Range(0, 200, search=(10, 100)), "steps on the patch in an attacked round"
    ] = 30,
    rate: Annotated[
        float, Range(0, 1, search=(1e-3, 0.1)), "how far a step moves a pixel, α"
    ] = 0.01,
    balance: Annotated[
        float, Range(0, 1e3, search=(1e-3, 1)), "weight of the unlearned model, λ"
    ] = 0.01,
    every: Annotated[
        int,
        Range(1, 200, search=(5, 50)),
        "steps with one unlearned model before it is made anew, K",
    ] = 10,
    epochs: Annotated[
        int, Range(1, 20, search=(1, 10)), "passes in which the model unlearns the patch"
    ] = 5,
    share: Share = 0.25,
    source: Source = None,
) -> Attack[Planted[Tensor]]:
    """A patch that holds against unlearning; BadInput where source and target are one class."""

    def init(view: AttackView) -> Tensor:
        return patch(view.data.x, size, 0.5)

    def plan(pixels: Tensor, view: AttackView) -> Tensor:
        goal = target_labels(view.data.y, target, source, view.classes)
        attacked = (goal >= 0).nonzero().flatten()
        if not len(attacked):
            return pixels
        order = torch.randperm(len(attacked), generator=view.generator).to(goal.device)
        drawn = attacked[order[:_SAMPLES]]
        x, y, goal = view.data.x[drawn], view.data.y[drawn], goal[drawn]
        for step in range(steps):
            # the first step too: without an unlearned model it would be another attack
            if step % every == 0:
                unlearned = _unlearned(view, Samples(_put(x, pixels), y), epochs)
                weight = balance * cosine_similarity(unlearned, view.params, dim=0).item()
                models = [
                    (1.0, partial(view.model, view.params)),
                    (weight, partial(view.model, unlearned)),
                ]
            batch = torch.randperm(len(y), generator=view.generator)[:_BATCH].to(y.device)
            pixels = _step(pixels, x[batch], goal[batch], models, rate)
        return pixels

    def stamp(pixels: Tensor, x: Tensor, _generator: torch.Generator) -> Tensor:
        return _put(x, pixels)

    return backdoor("a3fl", stamp, target=target, source=source, share=share, init=init, plan=plan)
