"""The gradient of a network of linear layers and rectifiers by hand, for all clients of a block.

h_0 = x, z_i = W_i h_{i-1} + b_i, h_i = m_i · max(0, z_i) with the factors m_i of dropout; the loss
of a client is ℓ = Σ w_s ℓ_s / Σ w_s over its samples, with ℓ_s the cross-entropy of softmax(z_L):

    ∂ℓ/∂z_L = w (softmax(z_L) - e_y) / Σ w        ∂ℓ/∂W_i = (∂ℓ/∂z_i)ᵀ h_{i-1}
    ∂ℓ/∂z_{i-1} = (∂ℓ/∂z_i) W_i · m_{i-1} · [z_{i-1} > 0]

Each line is one batched product over the clients, and nothing stands between the kernels. A
client's products have the same bits beside any number of others: what fills its batch up depends on
its own number of samples alone, and every matrix of every client begins at a multiple of LINE
values, because a product's sums may follow where its operands stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backstop.platform.contract import Slot
from backstop.platform.training.dropout import Dropout
from backstop.platform.training.lock_free import lock_free

LINE = 16  # float32 values in 64 bytes, the width of a vector register and of a line of cache
# parameters of all clients of a block: with gradients and momentum they stay near a core, and other
# cores get blocks of their own (measured of 37,506 each: seven clients at once are fastest where a
# core has a second-level cache of 1 MiB, ten and more where it has 2)
CACHED = 300_000
LEVEL_2 = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")  # Linux: "1024K"

Affine = tuple[Tensor, Tensor]  # a layer's weight (…, out, in) and bias (…, out)
# a layer's outputs and inputs, and where its weight and its bias begin in a vector
LayerPlace = tuple[int, int, int, int]
# the first client, the one behind the last, the width of their batches
Neighbors = tuple[int, int, int]


class Layer(NamedTuple):
    """A linear layer and what follows it, with its parameters' places in the wider vectors."""

    weight: Slot  # (out, in)
    bias: Slot  # (out,)
    rectified: bool = False
    dropout: Dropout | None = None


class Dense(NamedTuple):
    """A network that is nothing but linear layers and rectifiers. Its vectors (d,) are widened so
    that each tensor begins at a multiple of LINE values; what lies between is 0 and stays so.
    """

    layers: tuple[Layer, ...]
    # of tensors that lie side by side in both: in the flat and in the wider vector
    spans: tuple[tuple[slice, slice], ...]
    length: int  # of the wider vector, a multiple of LINE
    places: list[LayerPlace]  # of the layers in the wider vector
    flat: list[LayerPlace]  # and in the flat one

    def factors(self, samples: int, keys: Tensor | None) -> list[Tensor | None]:
        """Behind each layer those of dropout (l, samples, out) for l clients with these keys (l,);
        None where there is none.
        """
        if keys is None:
            return [None] * len(self.layers)
        return [
            None
            if layer.dropout is None
            else layer.dropout.factors(torch.Size((samples, *layer.bias.shape)), keys)
            for layer in self.layers
        ]

    def widen(self, vectors: Tensor) -> Tensor:
        """(…, d) → (…, length)."""
        wide = vectors.new_zeros(*vectors.shape[:-1], self.length)
        for span, wider in self.spans:
            wide[..., wider] = vectors[..., span]
        return wide

    def narrow(self, wide: Tensor) -> Tensor:
        """(…, length) → (…, d): a view, where nothing lies between the tensors."""
        pieces = [wide[..., wider] for _, wider in self.spans]
        return torch.cat(pieces, -1) if len(pieces) > 1 else pieces[0]


class Batch(NamedTuple):
    """A local step's samples; b is a multiple of LINE."""

    x: Tensor  # (k, b, f)
    y: Tensor  # (k, b)
    weight: Tensor  # (k, b): of each sample in its client's loss, 0 where there is none


def read_dense(module: nn.Module, slots: Sequence[Slot]) -> Dense | None:
    """A chain of flattening, linear layers, rectifiers and dropout whose last layer is linear; None
    for any other model. ``slots`` say where its parameters stand in the flat vector.
    """
    if type(module) is not nn.Sequential or len(module) != len(list(module.children())):
        return None  # children are each named once, even those that are there twice
    wider = _widened(slots)
    layers = _layers(module, {slot.name: slot for slot in wider})
    rectified = [layer.rectified for layer in layers]
    if not layers or rectified != [*(True for _ in layers[1:]), False]:
        return None
    return Dense(
        layers=tuple(layers),
        spans=tuple(_spans(slots, wider)),
        length=filled(wider[-1].span.stop),
        places=_places(wider),
        flat=_places(slots),
    )


def _places(slots: Sequence[Slot]) -> list[LayerPlace]:
    """Those of layers whose weights and biases are the slots, in turns."""
    places = []
    for weight, bias in zip(slots[::2], slots[1::2], strict=True):
        out, given = weight.shape
        places.append((out, given, weight.start, bias.start))
    return places


def _widened(slots: Sequence[Slot]) -> list[Slot]:
    """The slots one after another, each at a multiple of LINE."""
    wider, start = [], 0
    for slot in slots:
        wider.append(slot._replace(start=start))
        start = filled(start + slot.size)
    return wider


def _spans(slots: Sequence[Slot], wider: Sequence[Slot]) -> list[tuple[slice, slice]]:
    """Where the tensors lie in both vectors; those that are neighbors in both are one."""
    spans: list[tuple[slice, slice]] = []
    for slot, wide in zip(slots, wider, strict=True):
        start, wider_start = slot.start, wide.start
        if spans and (spans[-1][0].stop, spans[-1][1].stop) == (start, wider_start):
            start, wider_start = (span.start for span in spans.pop())
        spans.append((slice(start, slot.span.stop), slice(wider_start, wide.span.stop)))
    return spans


def _layers(module: nn.Sequential, slots: Mapping[str, Slot]) -> list[Layer]:
    """The layers of a chain; none where something else is among them."""
    layers: list[Layer] = []
    for name, part in module.named_children():
        if type(part) is nn.Linear and part.bias is not None:
            layers.append(Layer(slots[f"{name}.weight"], slots[f"{name}.bias"]))
        elif type(part) is nn.ReLU and layers and not layers[-1].rectified:
            layers[-1] = layers[-1]._replace(rectified=True)
        elif type(part) is Dropout and layers and layers[-1].rectified:
            layers[-1] = layers[-1]._replace(dropout=part)
        elif type(part) is not nn.Flatten or layers:
            return []
    return layers


def filled(count: int) -> int:
    """A number of values, filled up to a multiple of LINE."""
    return -(-count // LINE) * LINE


class Gradients:
    """What takes the gradients of one block of k clients, step after step."""

    def __init__(self, network: Dense, params: Tensor) -> None:
        """``params`` (k, length) are read anew in each step."""
        self.network = network
        self.grad = torch.zeros_like(params)  # and so it stays between the layers
        self.parts = parts_of(params, network.places)
        self.grads = parts_of(self.grad, network.places)

    def __call__(
        self,
        batch: Batch,
        counts: Sequence[int],
        keys: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The losses (l,) of the first l clients and their gradients (l, length), which the next
        call overwrites. ``counts`` are the samples of each client, which come first in its batch;
        ``keys`` (l,) those of dropout.
        """
        groups = neighbors(counts)
        factors = self.network.factors(batch.x.shape[1], keys)
        losses = take_gradients(batch, groups, self.parts, self.grads, factors)
        return losses, self.grad[: len(counts)]


def parts_of(vectors: Tensor, places: list[LayerPlace]) -> list[Affine]:
    """Each layer's tensors in the vectors (k, length) of the clients: views."""
    parts: list[Affine] = []
    for out, given, weight, bias in places:
        flat = vectors[:, weight : weight + out * given]
        parts.append((flat.view(len(vectors), out, given), vectors[:, bias : bias + out]))
    return parts


def neighbors(counts: Sequence[int]) -> list[Neighbors]:
    """Clients with so many samples each, those next to each other with batches of one width."""
    widths = [filled(count) for count in counts]
    ends = [row for row in range(1, len(widths)) if widths[row] != widths[row - 1]]
    return [(start, end, widths[start]) for start, end in pairwise([0, *ends, len(widths)])]


@cache
def cached_here() -> int:
    """CACHED for the second-level cache of this machine. How wide a block is changes no bit."""
    try:
        size = LEVEL_2.read_text(encoding="ascii").strip()
    except OSError:
        return CACHED
    kib = size.removesuffix("K")
    return max(CACHED, CACHED * int(kib) // 1024) if kib.isdecimal() else CACHED


def sure_labels(logits: Tensor) -> Tensor:
    """The labels (b,) of the largest of the logits (b, classes); -1 where one is not finite."""
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


def _logits(x: Tensor, layers: list[Affine]) -> Tensor:
    given = x.flatten(1)
    for index, (weight, bias) in enumerate(layers):
        given = torch.nn.functional.linear(given, weight[0], bias[0])
        if index + 1 < len(layers):
            given.relu_()
    return given


@lock_free
def dense_labels(
    batches: list[Tensor],
    params: Tensor,
    places: list[LayerPlace],
) -> list[Tensor]:
    """The labels (b,) that a model (d,), whose layers have these places, predicts for batches
    (b, …), in evaluation mode; -1 where an output is not finite.
    """
    layers = parts_of(params.unsqueeze(0), places)
    return [sure_labels(_logits(x, layers)) for x in batches]


def _of_group(
    factors: list[Tensor | None],
    first: int,
    last: int,
    width: int,
) -> list[Tensor | None]:
    """Those of neighboring clients, as wide as their batches."""
    return [None if factor is None else factor[first:last, :width] for factor in factors]


def _forward(
    x: Tensor,
    parts: list[Affine],
    factors: list[Tensor | None],
) -> list[Tensor]:
    """The input of each layer, and the logits."""
    inputs = [x]
    for index, (weight, bias) in enumerate(parts):
        out = torch.baddbmm(bias.unsqueeze(1), inputs[-1], weight.transpose(1, 2))
        if index + 1 < len(parts):
            out.relu_()
        factor = factors[index]
        if factor is not None:
            out.mul_(factor)
        inputs.append(out)
    return inputs


def _cross_entropy(
    logits: Tensor,
    y: Tensor,
    weight: Tensor,
) -> tuple[Tensor, Tensor]:
    """The losses and the gradient of the logits."""
    log_odds = logits.log_softmax(2)
    label = y.unsqueeze(2)
    share = weight / weight.sum(1, keepdim=True)
    losses = -(log_odds.gather(2, label).squeeze(2) * share).sum(1)
    behind = log_odds.exp_().scatter_add_(2, label, log_odds.new_full(label.shape, -1.0))
    return losses, behind.mul_(share.unsqueeze(2))


def _backward(
    behind: Tensor,
    inputs: list[Tensor],
    parts: list[Affine],
    grads: list[Affine],
    factors: list[Tensor | None],
) -> None:
    """From the gradient behind the last layer to those of all parameters. Where what a rectifier
    and the dropout after it let through is 0, so is the gradient in front of them.
    """
    for index in range(len(parts) - 1, -1, -1):
        given = inputs[index]
        weight, bias = grads[index]
        torch.bmm(behind.transpose(1, 2), given, out=weight)
        torch.sum(behind, [1], out=bias)
        if index:
            behind = behind.bmm(parts[index][0])
            factor = factors[index - 1]
            if factor is not None:
                behind.mul_(factor)
            torch.ops.aten.threshold_backward(behind, given, 0, grad_input=behind)


def gradients_of(
    batch: tuple[Tensor, Tensor, Tensor],
    groups: list[Neighbors],
    parts: list[Affine],
    grads: list[Affine],
    factors: list[Tensor | None],
) -> Tensor:
    """The losses (l,) of a step's clients, group after group; their gradients are written. The
    ``batch`` is a :class:`Batch`, the ``factors`` (l, b, out) are those behind each layer.
    """
    x, y, weight = batch
    losses = weight.new_empty([len(weight)])
    for first, last, width in groups:
        own = [(part[0][first:last], part[1][first:last]) for part in parts]
        own_grads = [(part[0][first:last], part[1][first:last]) for part in grads]
        dropped = _of_group(factors, first, last, width)
        inputs = _forward(x[first:last, :width], own, dropped)
        losses[first:last], behind = _cross_entropy(
            inputs.pop(), y[first:last, :width], weight[first:last, :width]
        )
        _backward(behind, inputs, own, own_grads, dropped)
    return losses


take_gradients = lock_free(gradients_of)
