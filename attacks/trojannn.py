"""TrojanNN: a patch whose pixels are made so that units which speak for the target class get a high
value.

U = the units u of largest strength,   δ = argmin_δ Σ_{u in U} (v - f_u(x ⊕ δ))²
x' = x ⊕ δ = (1 - w) ⊙ x + w ⊙ δ,   y' = y*

f(x) is what the last linear layer, of weights W, is given, and w a square at the bottom right. The
strength of a unit is Σ_c |W[c, u]|, what goes out of it; with ``favor=target`` it is W[y*, u], what
speaks for the target (for all-to-all the sum still).

Shapes: x (b, C, H, W) in [0, 1], y (b,), δ (C, size, size), cut to the image where that is smaller.

Source: Y. Liu, S. Ma, Y. Aafer, W.-C. Lee, J. Zhai, W. Wang, X. Zhang, "Trojaning Attack on Neural
Networks", NDSS 2018, sections on trojan trigger generation and internal neuron selection.

Deviations: what the layer behind the units is differs from model to model; here it is always the
last one. The paper's cost is that of the patch on an empty image, since its adversary has no data,
and it retrains on images made from the model; malicious clients have data, so the cost is the mean
over samples of theirs, on which fewer units are dead. Adam takes a fixed number of steps, each
followed by a projection onto [0, 1], in place of gradient descent to a threshold. As in the paper
the patch is made once, for the model of the first attacked round, which should have learned
something (``attack_start``, ``warmup``). With ``replan`` each attacked round goes on with it on its
own model: before photographs it then moves by 2 to 3 in L2 in a round and does not take (CIFAR-10,
``cnn``, ``overtrain``, ten rounds: 6 % success where a patch made once has 33 %).

Checked: the choice of units against public code; that the paper's adversary is not a federated one,
and so has no share of a batch, is remembered.

Cost: ``steps`` times the features of at most 64 samples, forward and backward, in each attacked
round.

Example: the only unit that counts for class 0 is the difference of two pixels, so the first becomes
white and the second black.
>>> import torch
>>> pixels, images = torch.full((1, 1, 2), 0.5), torch.zeros(1, 1, 1, 2)
>>> _made(
...     pixels,
...     lambda x: x.flatten(1) @ torch.tensor([[1.0], [-1.0]]),
...     images,
...     value=100.0,
...     steps=20,
... ).tolist()
[[[1.0, 0.0]]]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.optimizers import adam
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor, patch, with_patch
from backstop.platform.threats.parameters import SHARE, Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True
_SAMPLES = 64
_RATE = 0.1  # of Adam; a pixel crosses [0, 1] in about ten steps


class _Patch(NamedTuple):
    pixels: Tensor  # δ
    made: bool


def _strongest(view: AttackView, target: int | Literal["next"], count: int) -> Tensor:
    """The units with the largest |weights| in sum, or with the largest one to a target; all where
    there are fewer.
    """
    head = view.head[0]
    weight = head.of(view.params)
    strength = weight.abs().sum(0) if target == "next" else weight[target]
    return strength.topk(min(count, len(strength))).indices


def _made(
    pixels: Tensor, values: Callable[[Tensor], Tensor], x: Tensor, *, value: float, steps: int
) -> Tensor:
    """The patch that drives ``values(stamped x)`` (b, units) towards ``value``."""
    optimizer, pixels = adam(lr=_RATE), pixels.clone()
    memory = optimizer.start(pixels)
    for _ in range(steps):
        leaf = pixels.clone().requires_grad_()
        cost = (value - values(with_patch(x, leaf))).square().sum(1).mean()
        (grad,) = torch.autograd.grad(cost, leaf)
        # a model that has diverged shows no direction
        memory = optimizer.step(pixels, grad.nan_to_num(0, 0, 0), memory, 1.0)
        pixels.clamp_(0, 1)
    return pixels


def trojannn(
    *,
    target: Target = 0,
    size: Annotated[int, Range(1, 10**4, search=(1, 8)), "side of the patch in pixels"] = 3,
    units: Annotated[int, Range(1, 10**4, search=(1, 16)), "units that the patch drives, |U|"] = 1,
    favor: Annotated[
        Literal["outgoing", "target"],
        "units with the largest |weights| in sum, or with the largest weight to the target",
    ] = "outgoing",
    value: Annotated[
        float, Range(0, 1e6, search=(1, 100)), "value that they are driven to, v"
    ] = 100.0,
    steps: Annotated[
        int, Range(0, 500, search=(10, 200)), "steps on the patch each time that it is made"
    ] = 50,
    replan: Annotated[
        bool, "go on with the patch in each attacked round, not in the first alone"
    ] = False,
    share: Share = SHARE,
    source: Source = None,
) -> Attack[Planted[_Patch]]:
    """A patch that drives chosen units. Raises BadInput where source and target are one class."""

    def init(view: AttackView) -> _Patch:
        pixels = torch.rand(patch(view.data.x, size, 0.0).shape, generator=view.generator)
        return _Patch(pixels.to(view.data.x.device), made=False)

    def plan(state: _Patch, view: AttackView) -> _Patch:
        x = view.data.x
        if not len(x) or (state.made and not replan):
            return state
        x = x[torch.randperm(len(x), generator=view.generator)[:_SAMPLES].to(x.device)]
        chosen = _strongest(view, target if favor == "target" else "next", units)
        pixels = _made(
            state.pixels,
            lambda stamped: view.features(view.params, stamped)[:, chosen],
            x,
            value=value,
            steps=steps,
        )
        return _Patch(pixels, made=True)

    def stamp(state: _Patch, x: Tensor, _generator: torch.Generator) -> Tensor:
        return with_patch(x, state.pixels)

    return backdoor(
        "trojannn", stamp, target=target, source=source, share=share, init=init, plan=plan
    )
