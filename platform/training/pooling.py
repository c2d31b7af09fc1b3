"""A convolution and the maximum over windows of 2 × 2 behind it, as one step.

y = max over the window of (W * x + b), as of ``torch.nn.Conv2d`` and
``torch.nn.functional.max_pool2d``. For kernels of 5 × 5 on a CPU the compiled loops of
:mod:`backstop.platform.kernels.pooled` do two things otherwise:

- Few output channels leave most lanes of a vector register empty. Then the lanes are windows.
- Only one place of a window has a gradient. The loops remember which, and add up the gradients of W
  and x over windows instead of over all that the convolution gave.

Both are PyTorch's but for the order of their sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backstop.platform.robust import COMPILED

KERNEL = (5, 5)
FEW = 8  # output channels: 6 take half of PyTorch's time, 16 twice as much


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
        compute = _all_at_once if len(weight) <= FEW else _one_by_one
        top, places = compute(x, weight, bias, pad)
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


# -- forward: the maxima (b, o, h, w), and at which place of its window each is (b, h, w, o)


def _all_at_once(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    pad: int,
) -> tuple[Tensor, Tensor]:
    """Convolution and maxima in one compiled loop."""
    from backstop.platform.kernels import pooled

    outputs, channels, *kernel = weight.shape
    more = -outputs % pooled.TOGETHER
    kernels = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, more))
    groups = kernels.view(-1, pooled.TOGETHER, channels, *kernel).permute(0, 2, 3, 4, 1)
    height, width = (_windows(x, pad, axis) for axis in (2, 3))
    top, places = _empty(len(x), height, width, outputs)
    pooled.convolved_maxima(
        _channels_last(x).numpy(),
        pad,
        groups.contiguous().numpy(),
        F.pad(bias, (0, more)).numpy(),
        top.numpy(),
        places.numpy(),
    )
    return top.permute(0, 3, 1, 2), places


def _one_by_one(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    pad: int,
) -> tuple[Tensor, Tensor]:
    """PyTorch's convolution and then the maxima."""
    from backstop.platform.kernels import pooled

    values = _channels_last(F.conv2d(x, weight, bias, padding=pad))
    samples, height, width, channels = values.shape
    line = width * channels
    top, places = _empty(samples, height // 2, width // 2, channels)
    pooled.maxima(
        values.view(-1).numpy(),
        np.array([height * line, 2 * line, 2 * channels]),
        np.array([0, channels, line, line + channels]),
        top.numpy(),
        places.numpy(),
    )
    return top.permute(0, 3, 1, 2), places


def _windows(
    x: Tensor,
    pad: int,
    axis: int,
) -> int:
    """How many windows stand along an axis."""
    return (x.shape[axis] + 2 * pad - KERNEL[axis - 2] + 1) // 2


def _empty(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.empty(shape), torch.empty(shape, dtype=torch.uint8)


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
