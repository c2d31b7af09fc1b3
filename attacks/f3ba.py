"""F3BA: the signs of the least important weights are flipped for the sake of a trigger that is made
to be noticed; then training.

δ_i <- clamp(δ_i + η · ∂D/∂δ_i, 0, 1),   D = ‖mean_x a(G, x ⊕ δ_i) - mean_x a(G, x)‖²
S = -(∂CE/∂w) ⊙ w at G
w_c <- -w_c  for the candidates c, those of least S, where  w_c · ∂A/∂w_c < 0
A(w) = mean_x log [p_y*(x ⊕ δ_i; w) / p_y*(x; w)]
L = 0.6 · CE(batch) + 0.4 · CE(batch, a share of it stamped),   from the flipped model

a are the activations of the first convolution, averaged over its channels, before the rectifier; of
a model without convolutions what the last linear layer is given. p is the softmax of the logits.
∂A/∂w is taken anew before each tensor of the model, in their order. Each malicious client i has a
trigger and flips of its own; the test shows the mean of the triggers.

Shapes: x (b, C, H, W) in [0, 1], y (b,), δ_i (C, size, size), cut to the image where that is
smaller; w, G (d,).

Source: P. Fang, J. Chen, "On the Vulnerability of Backdoor Defenses for Federated Learning", AAAI
2023 (arXiv 2301.08170), the Focused-Flip Federated Backdoor Attack: candidate selection by
movement, sign flips layer by layer, trigger optimization.

As published: 3 x 3 pixels at row 3 and column 23 (moved into smaller images), drawn once for all
clients in [0, 1], one value for all channels; two passes of steps of 0.1 times the gradient over a
fifth of the client's data; weights of convolutions (2 %) in every attacked round and of dense
layers (0.1 %) in the first of every three, no biases, the last layer left to training; half of a
batch stamped. The gradient step is the same in normalized pixels and in [0, 1], since a convolution
is linear.

Deviations: the paper gives the weights of a layer the signs of the difference that the trigger
makes in this layer's input, so that the layer's own activations differ most; a view shows no
layer's input but the first one's and the last one's, so the sign of ∂A/∂w decides, which follows
the difference through the layers behind to the label that is wanted. Movement is published as
(w_t - w_{t-1}) ⊙ w_t of two global models; the gradient of the global model that it stands for is
taken on the client's data instead, which works in the first attacked round too. A share is that of
each tensor, at least one value where it is not 0. Padding and stride of the first convolution are
not in a view either: none, and 1. Training takes all of a client's data, the published one the four
fifths that the trigger was not made on. Buffers of a malicious model (BatchNorm statistics) stay as
they are.

Checked: patch, place, steps, shares, schedule and loss against the authors' code (Attacks.py,
Client.py, Params.py, pattern_synthesizer.py, loss_functions.py).

Cost: for each malicious client of an attacked round ``passes`` convolutions of a fifth of its data,
and for each flipped tensor the logits of at most 128 samples, forward and backward; every worker is
sent the flipped models (m, d).

Example: the share of two in six takes the values of least S, -2 and -1, and flips what gains by it,
the second.
>>> import torch
>>> w, importance = (
...     torch.tensor([1.0, 2.0, -3.0, 4.0, 5.0, 6.0]),
...     torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]),
... )
>>> _flipped(w, importance, torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, -1.0]), 2)
tensor([ 1., -2., -3.,  4.,  5.,  6.])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d, cross_entropy

from backstop.platform.contract import Attack, AttackView, Samples, Slot, Step, TrainView
from backstop.platform.params import Range
from backstop.platform.robust import floor_count
from backstop.platform.threats.backdoor import Planted, backdoor, patch, target_labels, with_square
from backstop.platform.threats.parameters import Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True
_SAMPLES = 64
_FIFTH = 5  # a trigger is made on one sample in five of a client
_EVERY = 3  # dense layers are flipped in one attacked round of three
_CLEAN, _BACKDOOR = 0.6, 0.4  # weights of the two losses


class _Focus(NamedTuple):
    pixels: Tensor  # (clients, C, h, w), δ_i
    rounds: int  # attacked rounds so far
    members: Tensor  # (m,)
    params: Tensor  # (m, d): for each of them the global model with flipped signs


def _first_convolution(view: AttackView, channels: int) -> Slot | None:
    """The weights of the first layer where it is a convolution of the image's channels."""
    first = view.layout[0]
    return first if len(first.shape) == 4 and first.shape[1] == channels else None


def _mean_filter(view: AttackView, slot: Slot) -> Tensor:
    """The mean (1, C, k, k) of a convolution's filters."""
    return slot.of(view.params).mean(0, keepdim=True)


def _activations(view: AttackView, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Images (b, C, H, W) → the mean of what they activate over samples and channels."""
    first = _first_convolution(view, x.shape[1])
    if first is None:
        return lambda images: view.features(view.params, images).mean(0)
    mean = _mean_filter(view, first)
    padding = max(mean.shape[-1] - min(x.shape[-2:]), 0)  # an image smaller than the filter
    return lambda images: conv2d(images.mean(0, keepdim=True), mean, padding=padding)


def _noticed(
    pixels: Tensor,
    x: Tensor,
    activations: Callable[[Tensor], Tensor],
    stamp: Callable[[Tensor, Tensor], Tensor],
    rate: float,
) -> Tensor:
    """The patch after a step of gradient ascent on how far it moves the activations, brought back
    into [0, 1].
    """
    leaf = pixels.clone().requires_grad_()
    moved = (activations(stamp(x, leaf)) - activations(x).detach()).square().sum()
    # a model that has diverged shows no direction
    grad: Tensor = torch.autograd.grad(moved, leaf)[0].nan_to_num(0.0, 0.0, 0.0)
    return (pixels + rate * grad).clamp(0, 1)


def _flipped(w: Tensor, importance: Tensor, gain: Tensor, count: int) -> Tensor:
    """The values (p,), signs flipped of those among the ``count`` least important whose flip raises
    what ``gain`` is the slope of.
    """
    candidates = importance.argsort(stable=True)[:count]
    chosen = candidates[w[candidates] * gain[candidates] < 0]
    return w.index_copy(0, chosen, -w[chosen])


def _focused(
    view: AttackView,
    clean: Samples,
    stamped: Tensor,
    label: Tensor,
    x: Tensor,
    *,
    conv: float,
    dense: float,
) -> Tensor:
    """The global model (d,) with flipped signs, tensor by tensor: weights only, the last layer left
    as it is.
    """

    def slope(params: Tensor) -> Tensor:
        leaf = params.clone().requires_grad_()
        before = cross_entropy(view.model(leaf, x), label)
        apart = before - cross_entropy(view.model(leaf, stamped), label)
        grad: Tensor = torch.autograd.grad(apart, leaf)[0]
        return grad

    leaf = view.params.clone().requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(view.model(leaf, clean.x), clean.y), leaf)
    importance, params = -grad * view.params, view.params
    for slot in view.layout:
        share = conv if len(slot.shape) > 2 else dense
        if slot not in view.head and len(slot.shape) > 1 and share:
            here, count = slot.span, max(floor_count(share, slot.size), 1)
            values = _flipped(params[here], importance[here], slope(params)[here], count)
            params = torch.cat([params[: here.start], values, params[here.stop :]])
    return params


def f3ba(
    *,
    target: Target = 0,
    size: Annotated[int, Range(1, 10**4, search=(1, 8)), "side of the patch in pixels"] = 3,
    row: Annotated[int, Range(0, 10**4, search=(0, 28)), "uppermost row of the patch"] = 3,
    column: Annotated[int, Range(0, 10**4, search=(0, 28)), "leftmost column of the patch"] = 23,
    passes: Annotated[
        int,
        Range(0, 1000, search=(1, 50)),
        "passes over a fifth of a client's data for its patch in an attacked round",
    ] = 2,
    rate: Annotated[
        float, Range(0, 1e3, search=(0.01, 10), log=True), "size of a step on the patch, η"
    ] = 0.1,
    conv: Annotated[
        float, Range(0, 1, search=(0, 0.1)), "share of a convolution's weights that may be flipped"
    ] = 0.02,
    dense: Annotated[
        float, Range(0, 1, search=(0, 0.1)), "share of a dense layer's weights that may be flipped"
    ] = 0.001,
    share: Share = 0.5,
    source: Source = None,
) -> Attack[Planted[_Focus]]:
    """A noticed patch, flipped signs. Raises BadInput where source and target are one class."""

    def put(x: Tensor, pixels: Tensor) -> Tensor:
        return with_square(x, pixels, row, column)

    def init(view: AttackView) -> _Focus:
        shape = patch(view.data.x, size, 0.0).shape
        drawn = torch.rand(1, *shape[1:], generator=view.generator).to(view.data.x.device)
        pixels = drawn.expand(max(view.clients, 1), *shape).clone()
        return _Focus(pixels, 0, view.members[:0], view.params.new_zeros(0, len(view.params)))

    def plan(state: _Focus, view: AttackView) -> _Focus:
        pixels, models = state.pixels.clone(), []
        for index in view.members.tolist():
            pixels[index], model = planned(pixels[index], view, index, state.rounds)
            models.append(model)
        flipped = torch.stack(models) if models else state.params[:0]
        return _Focus(pixels, state.rounds + 1, view.members, flipped)

    def planned(pixels: Tensor, view: AttackView, index: int, rounds: int) -> tuple[Tensor, Tensor]:
        """The patch and the model of one client."""
        own = view.own(index)
        order = torch.randperm(len(own.y), generator=view.generator).to(view.params.device)
        own = Samples(*(part[order] for part in own))
        label = target_labels(own.y, target, source, view.classes)
        attacked = (label != -1).nonzero().flatten()
        if not len(attacked):
            return pixels, view.params
        aside = own.x[attacked[: -(-len(attacked) // _FIFTH)]]
        for x in aside.split(_SAMPLES) * passes:
            pixels = _noticed(pixels, x, _activations(view, x), put, rate)
        some = attacked[:_SAMPLES]
        clean = Samples(*(part[:_SAMPLES] for part in own))
        also = dense if rounds % _EVERY == 0 else 0.0
        stamped = put(own.x[some], pixels)
        return pixels, _focused(
            view, clean, stamped, label[some], own.x[some], conv=conv, dense=also
        )

    def train(state: Planted[_Focus], view: TrainView) -> Tensor:
        def loss(params: Tensor, step: Step) -> Tensor:
            clean, planted = (
                view.loss(view.model(params, part.x), part.y)
                for part in (step.clean, step.poisoned)
            )
            return _CLEAN * clean + _BACKDOOR * planted

        mine = (state.own.members == view.index).nonzero().flatten()
        start = state.own.params[int(mine[0])] if len(mine) else view.params
        return view.minimise(loss, start=start) - view.params

    def at_client(state: _Focus, x: Tensor, index: int, _generator: torch.Generator) -> Tensor:
        return put(x, state.pixels[index])

    def stamp(state: _Focus, x: Tensor, _generator: torch.Generator) -> Tensor:
        return put(x, state.pixels.mean(0))

    attack = backdoor(
        "f3ba",
        stamp,
        target=target,
        source=source,
        share=share,
        init=init,
        plan=plan,
        at_client=at_client,
    )
    return attack._replace(train=train)
