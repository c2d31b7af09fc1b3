"""A pooled convolution is torch's convolution and pooling, bit for bit."""

from __future__ import annotations

import sys
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from backstop.platform import seeds
from backstop.platform.training import pooling
from backstop.platform.training.pooling import PooledConv2d

# channels, output channels, side, kernel, padding; the last two leave an odd side to pool
SIZES = [(3, 6, 32, 5, 0), (1, 6, 28, 5, 0), (3, 6, 8, 5, 2), (2, 4, 9, 3, 0), (2, 3, 7, 3, 1)]


def _layer(
    channels: int,
    out: int,
    side: int,
    kernel: int,
    pad: int,
) -> tuple[PooledConv2d, Tensor]:
    draws = seeds.generator(0, "tests", channels, side)
    layer = PooledConv2d(channels, out, kernel, padding=pad)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
    x = torch.rand(5, channels, side, side, generator=draws)
    x[:, :, : side // 2] = 0.5  # a flat area: all values of a window are equal
    return layer, x.contiguous(memory_format=torch.channels_last).requires_grad_()


def _stock(layer: PooledConv2d, x: Tensor) -> Tensor:
    return F.max_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=layer.padding), 2)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients_are_those_of_torch(size: tuple[int, ...]) -> None:
    """Ties go to the first place of a window, and an odd side's last line gets no gradient."""
    layer, x = _layer(*size)
    pooled, expected = layer(x), _stock(layer, x)
    assert torch.equal(pooled, expected)
    grad = torch.randn(pooled.shape, generator=seeds.generator(0, "tests", "grad"))
    inputs = (x, *layer.parameters())
    ours = torch.autograd.grad(pooled, inputs, grad)
    theirs = torch.autograd.grad(expected, inputs, grad)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_without_numba_it_is_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients too, whose loop is compiled otherwise."""
    monkeypatch.setattr(pooling, "COMPILED", False)
    monkeypatch.setitem(sys.modules, "backstop.platform.kernels.pooling", None)
    layer, x = _layer(*SIZES[0])
    inputs = (x, *layer.parameters())
    ours = torch.autograd.grad(layer(x).sum(), inputs)
    theirs = torch.autograd.grad(_stock(layer, x).sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_only_what_is_asked_for_is_differentiated() -> None:
    """The input of a first layer needs no gradient."""
    layer, x = _layer(*SIZES[0])
    layer(x.detach()).sum().backward()
    assert x.grad is None
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() > 0


def test_a_gradient_can_be_differentiated() -> None:
    """Attacks that look through a step of training need it."""
    layer, x = _layer(*SIZES[0])

    def bent(pooled: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad((pooled**2).sum(), layer.weight, create_graph=True)
        return torch.autograd.grad((grad**2).sum(), x)[0]

    assert torch.allclose(bent(layer(x)), bent(_stock(layer, x)), rtol=1e-4, atol=1e-2)


def test_it_works_under_transforms() -> None:
    """Under ``torch.func`` it is plain torch."""
    layer, x = _layer(*SIZES[1])
    named = dict(layer.named_parameters())

    def total(parameters: dict[str, Tensor]) -> Tensor:
        pooled: Tensor = torch.func.functional_call(layer, parameters, (x,))
        return pooled.sum()

    grads = torch.func.grad(total)({name: value.detach() for name, value in named.items()})
    expected = torch.autograd.grad(_stock(layer, x).sum(), list(named.values()))
    for name, other in zip(named, expected, strict=True):
        assert torch.equal(grads[name], other)


@pytest.mark.parametrize(("dtype", "bias"), [*product([torch.float64], [True, False])], ids=str)
def test_other_numbers_take_the_plain_way(dtype: torch.dtype, bias: bool) -> None:
    """Only float32 with a bias is laid out anew."""
    layer = PooledConv2d(2, 3, 3, bias=bias, dtype=dtype)
    x = torch.rand(2, 2, 8, 8, dtype=dtype, generator=seeds.generator(0, "tests", "double"))
    assert torch.equal(layer(x), _stock(layer, x))
