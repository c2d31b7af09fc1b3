"""PFedBA: a patch whose poisoned samples pull the model the way that clean ones do, so that honest
training, and personalization after it, does not undo the backdoor.

1. δ <- argmin_δ E[ℓ(G(x ⊕ δ), y*)],   once, before the first poison
2. δ <- argmin_δ E ‖∇_G ℓ(G(x ⊕ δ), y*) - ∇_G ℓ(G(x), y)‖₂,   in each attacked round
x' = x ⊕ δ = (1 - w) ⊙ x + w ⊙ δ,   y' = y*,   w = 1 on a square

Steps of both are δ <- clamp(δ - α ∇_δ, 0, 1). E is over a batch; the norm is that of the difference
of its two mean gradients.

Shapes: x (b, C, H, W) in [0, 1], y (b,), δ (C, size, size); G (d,).

Source: X. Lyu, Y. Han, W. Wang, J. Liu, Y. Zhu, G. Xu, J. Liu, X. Zhang, "Lurking in the shadows:
Unveiling Stealthy Backdoor Attacks against Personalized Federated Learning", USENIX Security 2024,
trigger generation by alignment of losses and of gradients.

Published for Fashion-MNIST in pixels from -1 to 1: a patch of 10 x 10 from row and column 10 of 28
on, 0.5 at first; 50 steps of the first stage, 30 passes of the second on at most 99 samples of each
class, in batches of 64, both with steps of 0.1 times the gradient; 16 of 64 samples poisoned. In
[0, 1] that is 0.75 at first and a rate of 0.1 / 4.

Deviations: the patch takes the same part of any image, 10/28 of its shorter side, where the authors
have other sizes for other data. A plan draws at most 128 samples of the malicious clients, so that
30 passes are 60 steps where theirs are some 480; ``passes=200`` is closest. The attack is for
personalized federations, whose clients go on training in private; in one without private parts it
is judged by the global model, as the authors do in their first figure. Published figures count
samples of the target class, for which nothing need happen; here they are left out.

Checked: patch, steps, passes, rate and both losses against the authors' code (serverbase.py,
main.py), which holds Fashion-MNIST alone.

Cost: in each attacked round ``4 * passes`` gradients of 64 samples in the parameters, half of them
differentiated once more in the patch; in the first one also ``first`` model calls.

Example: the model says class 1 the more, the larger its weight times the pixel. The true class is 1
and so is the label wanted: the gradients are equal where the patch, here the only pixel, is what it
covers, and a step takes it nearer to that.
>>> import torch
>>> model = lambda params, x: torch.cat([-params * x.flatten(1), params * x.flatten(1)], 1)
>>> white, y = torch.ones(1, 1, 1, 1), torch.tensor([1])
>>> gap = lambda pixels: _gap(model, torch.ones(1), Samples(white, y), y, pixels)
>>> _moved(torch.full((1, 1, 1), 0.9), gap, rate=0.5)
tensor([[[0.9773]]])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform.contract import Attack, AttackView, Samples
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor, patch, target_labels, with_square
from backstop.platform.threats.parameters import Share, Source, Target

VERSION = 1
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True
_SAMPLES, _BATCH = 128, 64

Model = Callable[[Tensor, Tensor], Tensor]


class _Patch(NamedTuple):
    pixels: Tensor  # δ
    begun: bool  # whether the first stage is over


def _put(x: Tensor, pixels: Tensor) -> Tensor:
    size = pixels.shape[-1]
    return with_square(x, pixels, size, size)


def _loss(model: Model, params: Tensor, x: Tensor, goal: Tensor, pixels: Tensor) -> Tensor:
    """How little the model gives samples with the patch the label that is wanted."""
    loss: Tensor = cross_entropy(model(params, _put(x, pixels)), goal)
    return loss


def _gap(model: Model, params: Tensor, clean: Samples, goal: Tensor, pixels: Tensor) -> Tensor:
    """How far the gradient of samples with the patch is from that of the clean ones."""
    leaf = params.clone().requires_grad_()
    (honest,) = torch.autograd.grad(cross_entropy(model(leaf, clean.x), clean.y), leaf)
    poisoned = _loss(model, leaf, clean.x, goal, pixels)
    (malicious,) = torch.autograd.grad(poisoned, leaf, create_graph=True)
    gap: Tensor = torch.linalg.vector_norm(malicious - honest)
    return gap


def _moved(pixels: Tensor, loss: Callable[[Tensor], Tensor], rate: float) -> Tensor:
    """The patch after a step of gradient descent."""
    leaf = pixels.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf), leaf)
    # a model that has diverged shows no direction
    return (pixels - rate * grad.nan_to_num(0, 0, 0)).clamp(0, 1)


def pfedba(
    *,
    target: Target = 0,
    part: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.1, 0.5)),
        "side of the patch in shorter sides of the image",
    ] = 10 / 28,
    value: Annotated[float, Range(0, 1), "brightness of the patch before it is learned"] = 0.75,
    first: Annotated[
        int, Range(0, 1000, search=(10, 100)), "steps down the loss, in the first attacked round"
    ] = 50,
    passes: Annotated[
        int,
        Range(0, 200, search=(5, 50)),
        "passes over the samples that align the gradients, in each attacked round",
    ] = 30,
    rate: Annotated[
        float, Range(0, 1e3, log=True, search=(1e-3, 10)), "size of a step on the patch, α"
    ] = 0.025,
    share: Share = 0.25,
    source: Source = None,
) -> Attack[Planted[_Patch]]:
    """A patch aligned with the clean task; BadInput where source and target are one class."""

    def init(view: AttackView) -> _Patch:
        size = max(round(part * min(view.data.x.shape[-2:])), 1)
        return _Patch(patch(view.data.x, size, value), begun=False)

    def batches(view: AttackView, drawn: Tensor, count: int) -> Iterator[tuple[Samples, Tensor]]:
        """So many batches of the samples drawn, pass after pass, with the labels wanted."""
        goal = target_labels(view.data.y, target, source, view.classes)
        while count:
            order = torch.randperm(len(drawn), generator=view.generator).to(drawn.device)
            for some in drawn[order].split(_BATCH)[:count]:
                count -= 1
                yield Samples(view.data.x[some], view.data.y[some]), goal[some]

    def plan(state: _Patch, view: AttackView) -> _Patch:
        goal = target_labels(view.data.y, target, source, view.classes)
        attacked = (goal >= 0).nonzero().flatten()
        if not len(attacked):
            return state
        order = torch.randperm(len(attacked), generator=view.generator).to(goal.device)
        drawn, pixels = attacked[order[:_SAMPLES]], state.pixels
        for clean, wanted in batches(view, drawn, 0 if state.begun else first):
            loss = partial(_loss, view.model, view.params, clean.x, wanted)
            pixels = _moved(pixels, loss, rate)
        for clean, wanted in batches(view, drawn, passes * -(-len(drawn) // _BATCH)):
            gap = partial(_gap, view.model, view.params, clean, wanted)
            pixels = _moved(pixels, gap, rate)
        return _Patch(pixels, begun=True)

    def stamp(state: _Patch, x: Tensor, _generator: torch.Generator) -> Tensor:
        return _put(x, state.pixels)

    return backdoor(
        "pfedba", stamp, target=target, source=source, share=share, init=init, plan=plan
    )
