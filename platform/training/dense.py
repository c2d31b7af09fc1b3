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

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backstop.platform.contract import Slot
from backstop.platform.training.dropout import Dropout

LINE = 16  # float32 values in 64 bytes, the width of a vector register and of a line of cache
# parameters of all clients of a block: with gradients and momentum they stay in a core's cache
# (measured: of 37,506 each, seven clients at once are fastest), and other cores get blocks of their
# own
CACHED = 300_000


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
    spans: tuple[tuple[slice, slice], ...]  # of each tensor in the flat and in the wider vector
    length: int  # of the wider vector, a multiple of LINE

    def widen(self, vectors: Tensor) -> Tensor:
        """(…, d) → (…, length)."""
        wide = vectors.new_zeros(*vectors.shape[:-1], self.length)
        for span, wider in self.spans:
            wide[..., wider] = vectors[..., span]
        return wide

    def narrow(self, wide: Tensor) -> Tensor:
        """(…, length) → (…, d)."""
        return torch.cat([wide[..., wider] for _, wider in self.spans], -1)


class Batch(NamedTuple):
    """A local step's samples; b is a multiple of LINE."""

    x: Tensor  # (k, b, f)
    y: Tensor  # (k, b)
    weight: Tensor  # (k, b): of each sample in its client's loss, 0 where there is none


def read_dense(module: nn.Module, slots: Sequence[Slot]) -> Dense | None:
    """A chain of flattening, linear layers, rectifiers and dropout whose last layer is linear; None
    for any other model. ``slots`` say where its parameters stand in the flat vector.
    """
    if type(module) is not nn.Sequential:
        return None
    wider = _widened(slots)
    layers = _layers(module, {slot.name: slot for slot in wider})
    rectified = [layer.rectified for layer in layers]
    if not layers or rectified != [*(True for _ in layers[1:]), False]:
        return None
    spans = [(slot.span, wide.span) for slot, wide in zip(slots, wider, strict=True)]
    return Dense(tuple(layers), tuple(spans), filled(wider[-1].span.stop))


def _widened(slots: Sequence[Slot]) -> list[Slot]:
    """The slots one after another, each at a multiple of LINE."""
    wider, start = [], 0
    for slot in slots:
        wider.append(slot._replace(start=start))
        start = filled(start + slot.size)
    return wider


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

    def __init__(self, layers: Sequence[Layer], params: Tensor) -> None:
        """``params`` (k, length) are read anew in each step."""
        self.layers = layers
        self.grad = torch.zeros_like(params)
        self.parts = [_Part.of(layer, params) for layer in layers]
        self.grads = [_Part.of(layer, self.grad) for layer in layers]

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
        losses = self.grad.new_empty(len(counts))
        for rows, width in _alike([filled(count) for count in counts]):
            own = Batch(*(part[rows, :width] for part in batch))
            losses[rows] = self._take(rows, own, None if keys is None else keys[rows])
        return losses, self.grad[: len(counts)]

    def _take(
        self,
        rows: slice,
        batch: Batch,
        keys: Tensor | None,
    ) -> Tensor:
        """The losses of neighbors whose batches are of one width; their gradients are written."""
        inputs, factors, logits = self._forward(rows, batch.x, keys)
        log_odds = logits.log_softmax(2)
        label = batch.y.unsqueeze(2)
        share = batch.weight / batch.weight.sum(1, keepdim=True)
        losses = -(log_odds.gather(2, label).squeeze(2) * share).sum(1)
        behind = log_odds.exp_().scatter_add_(2, label, log_odds.new_full(label.shape, -1.0))
        behind.mul_(share.unsqueeze(2))
        for index in range(len(self.layers) - 1, -1, -1):
            given = inputs[index]
            own = self.grads[index]
            torch.bmm(behind.transpose(1, 2), given, out=own.weight[rows])
            torch.sum(behind, 1, out=own.bias[rows])
            if index:
                behind = behind.bmm(self.parts[index].weight[rows])
                behind = _through_rectifier(behind, given, factors.get(index - 1))
        return losses

    def _forward(
        self,
        rows: slice,
        x: Tensor,
        keys: Tensor | None,
    ) -> tuple[list[Tensor], Mapping[int, Tensor], Tensor]:
        """The input of each layer, the factors of dropout behind a layer, the logits."""
        inputs = [x]
        factors: dict[int, Tensor] = {}
        for index, (layer, part) in enumerate(zip(self.layers, self.parts, strict=True)):
            bias = part.bias[rows].unsqueeze(1)
            weight = part.weight[rows].transpose(1, 2)
            out = torch.baddbmm(bias, inputs[-1], weight)
            if layer.rectified:
                out.relu_()
            if layer.dropout is not None and keys is not None:
                factors[index] = layer.dropout.factors(out.shape[1:], keys)
                out.mul_(factors[index])
            inputs.append(out)
        return inputs, factors, inputs.pop()


class _Part(NamedTuple):
    """A layer's tensors in the vectors (k, length) of the clients: views."""

    weight: Tensor  # (k, out, in)
    bias: Tensor  # (k, out)

    @classmethod
    def of(cls, layer: Layer, vectors: Tensor) -> _Part:
        return cls(layer.weight.of(vectors), layer.bias.of(vectors))


def _alike(widths: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Neighbors of the same width."""
    ends = [row for row in range(1, len(widths)) if widths[row] != widths[row - 1]]
    for start, end in pairwise([0, *ends, len(widths)]):
        yield slice(start, end), widths[start]


def _through_rectifier(
    behind: Tensor,
    after: Tensor,
    factors: Tensor | None,
) -> Tensor:
    """The gradient in front of a rectifier and the dropout that follows it: where the value
    ``after`` both is 0, so is the gradient.
    """
    if factors is not None:
        behind.mul_(factors)
    through: Tensor = torch.ops.aten.threshold_backward(behind, after, 0)
    return through
