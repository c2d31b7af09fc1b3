"""A convolution with few channels and the maximum over windows of 2 × 2 behind it, as one step.

y = max over the window of (W * x + b). On a CPU the four places of a window become four groups of
output channels of one convolution with stride 2: six channels leave most lanes of a vector register
empty, four times as many fill them, and the maximum of groups needs no pooling. The values, and the
gradients, are those of ``torch.nn.Conv2d`` and ``torch.nn.functional.max_pool2d`` bit for bit: the
kernel's new zeros add nothing to a sum, and the gradient of W is torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backstop.platform.robust import COMPILED

PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of a window, row by row


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
    if torch._C._are_functorch_transforms_active():  # noqa: SLF001 -- torch has no public name for it
        return False
    return x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.dim() == 4


def _widened(weight: Tensor) -> Tensor:
    """(o, c, k, k) → (4 o, c, k + 1, k + 1): the kernel at each place of a window."""
    out, channels, height, width = weight.shape
    wide = weight.new_zeros(4, out, channels, height + 1, width + 1)
    for group, (row, column) in zip(wide, PLACES, strict=True):
        group[..., row : row + height, column : column + width] = weight
    return wide.flatten(0, 1)


class _Pooled(torch.autograd.Function):
    """x (b, c, H, W), W (o, c, k, k), b (o,), padding → maxima (b, o, h, w)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        pad: int,
    ) -> Tensor:
        windows = F.conv2d(x, _widened(weight), bias.repeat(4), stride=2, padding=pad)
        first, second, third, fourth = windows.split(len(weight), 1)
        top = torch.maximum(torch.maximum(first, second), torch.maximum(third, fourth))
        ctx.save_for_backward(x, weight, bias, windows, top)
        ctx.pad = pad
        return top

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, windows, top = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # somebody differentiates the gradient: autograd knows how to
            return *_recorded((x, weight, bias), needed, ctx.pad, grad), None
        sides = zip(x.shape[2:], weight.shape[2:], strict=True)
        shape = [side + 2 * ctx.pad - kernel + 1 for side, kernel in sides]
        spread = _spread(windows, top, grad, shape)
        gradients = torch.ops.aten.convolution_backward(
            spread,
            x,
            weight,
            bias_sizes=[len(weight)],
            stride=[1, 1],
            padding=[ctx.pad, ctx.pad],
            dilation=[1, 1],
            transposed=False,
            output_padding=[0, 0],
            groups=1,
            output_mask=needed,
        )
        return *gradients, None


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


def _spread(
    windows: Tensor,
    top: Tensor,
    grad: Tensor,
    shape: list[int],
) -> Tensor:
    """The gradient of the convolution's output (b, o, *shape) from that of the maxima, at the first
    place that has the maximum.
    """
    from backstop.platform.kernels import images

    samples, channels, height, width = top.shape
    odd = shape != [2 * height, 2 * width]
    out = (torch.zeros if odd else torch.empty)(samples, *shape, channels)
    places = _channels_last(windows).view(samples, height, width, 4, channels)
    tensors = places, _channels_last(top), _channels_last(grad), out
    images.spread(*(tensor.numpy() for tensor in tensors))
    return out.permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> Tensor:
    """(b, c, h, w) → (b, h, w, c), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()
