"""A convolution and the maximum over windows of 2 × 2 behind it, as one step.

y = max over the window of (W * x + b). The values are those of ``torch.nn.Conv2d`` and
``torch.nn.functional.max_pool2d`` bit for bit. For kernels of 5 × 5 on a CPU two things are done
otherwise:

- Few output channels leave most lanes of a vector register empty. Then the four places of a window
  become four groups of channels of one convolution with stride 2; the zeros that this adds to a
  kernel add nothing to a sum. (They do where an image has an infinity, whose maxima become NaN.)
- Only one place of a window has a gradient. The compiled loops of
  :mod:`backstop.platform.kernels.pooled` remember which, and add up the gradients of W and x over
  windows instead of over all that the convolution gave. They are PyTorch's but for the order of
  their sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backstop.platform.robust import COMPILED

PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of a window, row by row
KERNEL = (5, 5)
FEW = 8  # output channels: in groups 6 take two thirds of the time, 16 a third more


class PooledConv2d(nn.Conv2d):
    """A convolution with stride 1 that gives the maxima of its windows: (b, c, H, W) → (b, o, h,
    w), where h and w are half the sides of the convolution's output, rounded down.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The maxima."""
        pad = int(self.padding[0])
        if self.bias is None or not _fits(x, self.weight):
            return _plain(x, self.weight, self.bias, pad)
        pooled: Tensor = _Pooled.apply(x, self.weight, self.bias, pad)
        return pooled


def _plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pad: int,
) -> Tensor:
    return F.max_pool2d(F.conv2d(x, weight, bias, padding=pad), 2)


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Whether the other way to compute it is open: for plain images in float32 arithmetic on a CPU,
    outside of ``torch.func``, where numba is installed.
    """
    if not COMPILED or torch.is_autocast_enabled("cpu"):
        return False
    # torch has no public name for it
    if torch._C._are_functorch_transforms_active():  # noqa: SLF001
        return False
    if weight.shape[2:] != KERNEL:
        return False
    return x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.dim() == 4


class _Pooled(torch.autograd.Function):
    """x (b, c, H, W), W (o, c, 5, 5), b (o,), padding → maxima (b, o, h, w)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        pad: int,
    ) -> Tensor:
        few = len(weight) <= FEW
        convolved = (_in_groups if few else _as_it_is)(x, weight, bias, pad)
        top, places = _maxima(convolved)
        ctx.save_for_backward(x, weight, bias, places)
        ctx.pad = pad
        return top

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, places = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # somebody differentiates the gradient: autograd knows how to
            return *_recorded((x, weight, bias), needed, ctx.pad, grad), None
        of_x, of_weight, of_bias = needed
        windows = _Windows(_channels_last(grad), places, ctx.pad)
        return (
            _input_gradient(x, weight, windows) if of_x else None,
            _weight_gradient(x, weight, windows) if of_weight else None,
            windows.grad.sum((0, 1, 2)) if of_bias else None,
            None,
        )


def _recorded(
    inputs: tuple[Tensor, Tensor, Tensor],
    needed: tuple[bool, ...],
    pad: int,
    grad: Tensor,
) -> list[Tensor | None]:
    """The gradients of x, W and b that are needed, differentiable themselves."""
    pairs = list(zip(inputs, needed, strict=True))
    asked = [tensor for tensor, is_needed in pairs if is_needed]
    pooled = _plain(*inputs, pad)
    grads = iter(torch.autograd.grad(pooled, asked, grad, create_graph=True))
    return [next(grads) if is_needed else None for is_needed in needed]


# -- forward


class _Convolved(NamedTuple):
    """What the maxima are taken of, with channels side by side."""

    values: Tensor
    shape: tuple[int, int, int, int]  # (b, h, w, o) of the maxima
    strides: tuple[int, int, int]  # from one sample, row and column of windows to the next
    steps: tuple[int, int, int, int]  # from the first place of a window to each


def _in_groups(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    pad: int,
) -> _Convolved:
    """One group of channels for each place of a window."""
    out = F.conv2d(x, _widened(weight), bias.repeat(4), stride=2, padding=pad)
    samples, channels, height, width = out.shape
    outputs = len(weight)
    return _Convolved(
        _channels_last(out),
        (samples, height, width, outputs),
        (height * width * channels, width * channels, channels),
        (0, outputs, 2 * outputs, 3 * outputs),
    )


def _widened(weight: Tensor) -> Tensor:
    """(o, c, k, k) → (4 o, c, k + 1, k + 1): the kernel at each place of a window."""
    out, channels, height, width = weight.shape
    wide = weight.new_zeros(4, out, channels, height + 1, width + 1)
    for group, (row, column) in zip(wide, PLACES, strict=True):
        group[..., row : row + height, column : column + width] = weight
    return wide.flatten(0, 1)


def _as_it_is(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    pad: int,
) -> _Convolved:
    """The convolution, whose rows and columns go in pairs."""
    out = F.conv2d(x, weight, bias, padding=pad)
    samples, channels, height, width = out.shape
    line = width * channels
    return _Convolved(
        _channels_last(out),
        (samples, height // 2, width // 2, channels),
        (height * line, 2 * line, 2 * channels),
        (0, channels, line, line + channels),
    )


def _maxima(convolved: _Convolved) -> tuple[Tensor, Tensor]:
    """The maxima (b, o, h, w), and at which place of its window each is (b, h, w, o)."""
    from backstop.platform.kernels import pooled

    top = torch.empty(convolved.shape)
    places = torch.empty(convolved.shape, dtype=torch.uint8)
    pooled.maxima(
        convolved.values.view(-1).numpy(),
        np.array(convolved.strides),
        np.array(convolved.steps),
        top.numpy(),
        places.numpy(),
    )
    return top.permute(0, 3, 1, 2), places


def _channels_last(x: Tensor) -> Tensor:
    """(b, c, h, w) → (b, h, w, c), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


# -- backward


class _Windows(NamedTuple):
    """What the windows of a step give their gradients to."""

    grad: Tensor  # (b, h, w, o)
    places: Tensor  # (b, h, w, o): the place of the maximum
    pad: int


def _weight_gradient(
    x: Tensor,
    weight: Tensor,
    windows: _Windows,
) -> Tensor:
    """(o, c, 5, 5)."""
    from backstop.platform.kernels import pooled

    outputs, channels, rows, columns = weight.shape
    out = torch.zeros(outputs, rows, _room(columns * channels))
    pooled.weight_gradient(
        _channels_last(x).numpy(),
        windows.pad,
        windows.grad.numpy(),
        windows.places.numpy(),
        out.numpy(),
    )
    kernels = out[..., : columns * channels].view(outputs, rows, columns, channels)
    return kernels.permute(0, 3, 1, 2)


def _input_gradient(
    x: Tensor,
    weight: Tensor,
    windows: _Windows,
) -> Tensor:
    """(b, c, H, W)."""
    from backstop.platform.kernels import pooled

    rows = _channels_last(weight).flatten(2)
    kernels = F.pad(rows, (0, _room(rows.shape[2]) - rows.shape[2]))
    samples, channels, height, width = x.shape
    out = torch.empty(samples, height, width, channels)
    pooled.input_gradient(
        kernels.numpy(),
        windows.pad,
        windows.grad.numpy(),
        windows.places.numpy(),
        out.numpy(),
    )
    return out.permute(0, 3, 1, 2)


def _room(width: int) -> int:
    """Values in the whole lanes that a row of a kernel takes."""
    from backstop.platform.kernels.pooled import LANES

    return -(-width // LANES) * LANES
