"""A pooled convolution is torch's convolution and pooling but for the order of the sums."""

from __future__ import annotations

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from backstop.platform import seeds
from backstop.platform.training import pooling
from backstop.platform.training.pooling import PooledConv2d

# channels, output channels, height, width, padding. Rows of kernels are shorter and longer than a
# register and just as long, rows of windows too; convolutions have odd sides, groups of outputs are
# not full, and there are layers of both kinds, with few outputs and with many
SIZES = [
    (3, 6, 32, 32, 0),
    (1, 6, 28, 28, 0),
    (6, 16, 14, 14, 0),
    (3, 6, 8, 8, 2),
    (16, 9, 6, 11, 1),
    (3, 20, 9, 7, 0),
    (7, 2, 7, 12, 2),
    (2, 4, 9, 41, 1),
    (1, 8, 6, 36, 0),
]


def _layer(
    channels: int,
    out: int,
    height: int,
    width: int,
    pad: int,
) -> tuple[PooledConv2d, Tensor]:
    draws = seeds.generator(0, "tests", channels, height)
    layer = PooledConv2d(channels, out, 5, padding=pad)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
    x = torch.rand(5, channels, height, width, generator=draws)
    x[:, :, : height // 2] = 0.5  # a flat area: all values of a window are equal
    return layer, x.contiguous(memory_format=torch.channels_last).requires_grad_()


def _whole(
    channels: int,
    out: int,
    height: int,
    width: int,
    pad: int,
) -> tuple[PooledConv2d, Tensor, Tensor]:
    """A layer, images and a gradient of small whole numbers, all of whose sums are exact in any
    order; many maxima are ties.
    """
    draws = seeds.generator(0, "tests", "whole", channels, height)

    def numbers(shape: torch.Size) -> Tensor:
        return torch.randint(-2, 3, shape, generator=draws).float()

    layer = PooledConv2d(channels, out, 5, padding=pad)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(numbers(parameter.shape))
    x = numbers(torch.Size([3, channels, height, width])).requires_grad_()
    return layer, x, numbers(_stock(layer, x).shape)


def _stock(layer: PooledConv2d, x: Tensor) -> Tensor:
    return F.max_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=layer.padding), 2)


def _gradients(
    pooled: Tensor,
    layer: PooledConv2d,
    x: Tensor,
    grad: Tensor,
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(pooled, (x, *layer.parameters()), grad)


def _in_double(layer: PooledConv2d, x: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """The gradients in float64, from the places that torch's pooling names in float32."""
    convolved = F.conv2d(x, layer.weight, layer.bias, padding=layer.padding)
    _, places = F.max_pool2d(convolved, 2, return_indices=True)
    spread = torch.zeros_like(convolved, dtype=torch.float64).flatten(2)
    spread.scatter_(2, places.flatten(2), grad.double().flatten(2))
    inputs = [value.detach().double().requires_grad_() for value in (x, *layer.parameters())]
    doubled = F.conv2d(inputs[0], inputs[1], inputs[2], padding=layer.padding)
    return torch.autograd.grad(doubled, inputs, spread.view_as(doubled))


def _assert_near(one: Tensor, other: Tensor) -> None:
    """To a millionth of the largest value."""
    assert one.shape == other.shape
    assert (one.double() - other.double()).abs().max() <= 2e-6 * other.double().abs().max()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients_are_the_exact_ones(size: tuple[int, ...]) -> None:
    """Ties go to the first place of a window, and an odd side's last line gets no gradient."""
    layer, x = _layer(*size)
    pooled = layer(x)
    _assert_near(pooled, _stock(copy.deepcopy(layer).double(), x.double()))
    assert type(pooled.grad_fn).__name__ == "_PooledBackward"
    grad = torch.randn(pooled.shape, generator=seeds.generator(0, "tests", "grad"))
    exact = _in_double(layer, x, grad)
    for ours, theirs in zip(_gradients(pooled, layer, x, grad), exact, strict=True):
        _assert_near(ours, theirs)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_where_sums_are_exact_everything_is_as_in_torch(size: tuple[int, ...]) -> None:
    layer, x, grad = _whole(*size)
    assert torch.equal(layer(x), _stock(layer, x))
    ours = _gradients(layer(x), layer, x, grad)
    theirs = _gradients(_stock(layer, x), layer, x, grad)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("out", [6, 16])
def test_a_value_that_is_none_is_the_maximum_as_in_torch(out: int) -> None:
    """The gradient of the images tells which places were taken: it needs no image."""
    layer, x, grad = _whole(3, out, 12, 12, 0)
    with torch.no_grad():
        x[0, 1, 3, 4] = x[2, 0, 7, 7] = torch.nan
        x[1, 2, 5, 5] = -torch.inf
    ours, theirs = layer(x), _stock(layer, x)
    assert ours.isnan().any()
    assert torch.equal(ours.isnan(), theirs.isnan())
    assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())
    of_ours, of_theirs = (torch.autograd.grad(pooled, x, grad)[0] for pooled in (ours, theirs))
    assert torch.equal(of_ours, of_theirs)


@pytest.mark.parametrize("size", [SIZES[0], SIZES[2]], ids=str)
def test_how_tensors_lie_in_memory_does_not_matter(size: tuple[int, ...]) -> None:
    layer, x, grad = _whole(*size)
    expected = _gradients(layer(x), layer, x, grad)
    turned = x.detach().mT.contiguous().mT.requires_grad_()
    every_second = x.detach().repeat_interleave(2, 0)[::2].requires_grad_()
    laid_out = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    for other in (laid_out, turned, every_second):
        found = _gradients(layer(other), layer, other, grad.mT.contiguous().mT)
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("size", [SIZES[0], SIZES[2]], ids=str)
def test_bits_do_not_follow_the_threads(size: tuple[int, ...]) -> None:
    """Of a process that trains several clients at once."""
    layer, x = _layer(*size)
    grad = torch.randn(layer(x).shape, generator=seeds.generator(0, "tests", "grad"))

    def step(_: int) -> tuple[Tensor, ...]:
        pooled = layer(x)
        return pooled, *_gradients(pooled, layer, x, grad)

    alone = step(0)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(step, range(16)))
    for beside in found:
        assert all(torch.equal(*pair) for pair in zip(beside, alone, strict=True))


def test_without_numba_it_is_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients too, whose loops are compiled otherwise."""
    monkeypatch.setattr(pooling, "COMPILED", False)
    monkeypatch.setitem(sys.modules, "backstop.platform.kernels.pooled", None)
    layer, x = _layer(*SIZES[0])
    inputs = (x, *layer.parameters())
    ours = torch.autograd.grad(layer(x).sum(), inputs)
    theirs = torch.autograd.grad(_stock(layer, x).sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("asked", [*product([True, False], repeat=3)][:-1], ids=str)
def test_only_what_is_asked_for_is_differentiated(asked: tuple[bool, bool, bool]) -> None:
    """The input of a first layer needs no gradient, and parameters may be frozen."""
    layer, x, grad = _whole(*SIZES[2])
    inputs = (x, *layer.parameters())
    expected = _gradients(_stock(layer, x), layer, x, grad)
    for tensor, needed in zip(inputs, asked, strict=True):
        tensor.requires_grad_(needed)
    layer(x).backward(grad)
    for tensor, needed, value in zip(inputs, asked, expected, strict=True):
        assert (tensor.grad is not None) == needed
        assert tensor.grad is None or torch.equal(tensor.grad, value)


@pytest.mark.parametrize("size", [SIZES[0], SIZES[2]], ids=str)
def test_a_gradient_can_be_differentiated(size: tuple[int, ...]) -> None:
    """Attacks that look through a step of training need it."""
    layer, x = _layer(*size)

    def bent(pooled: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad((pooled**2).sum(), layer.weight, create_graph=True)
        return torch.autograd.grad((grad**2).sum(), x)[0]

    _assert_near(bent(layer(x)), bent(_stock(layer, x)))


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


@pytest.mark.parametrize(
    ("dtype", "bias", "kernel"),
    [(torch.float64, True, 5), (torch.float64, False, 5), (torch.float32, True, 3)],
    ids=str,
)
def test_other_layers_take_the_plain_way(dtype: torch.dtype, bias: bool, kernel: int) -> None:
    """Only 5 × 5 kernels in float32 with a bias have loops of their own."""
    layer = PooledConv2d(2, 3, kernel, bias=bias, dtype=dtype)
    x = torch.rand(2, 2, 8, 8, dtype=dtype, generator=seeds.generator(0, "tests", "double"))
    pooled = layer(x)
    assert torch.equal(pooled, _stock(layer, x))
    assert type(pooled.grad_fn).__name__ != "_PooledBackward"
