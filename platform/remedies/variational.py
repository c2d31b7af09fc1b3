"""A small variational autoencoder: what it reconstructs badly is unlike what it was trained on.

h = relu(E_2 relu(E_1 x)),   μ = M h,   v = softplus(V h),   z = μ + e^(v/2) ⊙ N(0, I)
x̂ = sigmoid(D_3 relu(D_2 relu(D_1 z)))
loss = Σ (x̂ - x)² - ½ Σ (1 + v - μ² - e^v)

each of the maps with a bias. Everything is float64, so that who is unlike the others does not hang
on the last digits of a sum.

Source: D. P. Kingma and M. Welling, "Auto-Encoding Variational Bayes", ICLR 2014; the form, v ≥ 0
included, is that of Snowball's authors' code.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from backstop.platform.optimizers import adam

_BATCH = 8


class Autoencoder(NamedTuple):
    """Its sizes, and all of its weights and biases in one vector."""

    inputs: int
    hidden: int
    latent: int
    weights: Tensor

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of E_1, E_2, M, V, D_1, D_2, D_3, each with its bias."""
        inner, narrow = self.hidden, self.latent
        ways = (
            (inner, self.inputs),
            (inner, inner),
            (narrow, inner),
            (narrow, inner),
            (inner, narrow),
            (inner, inner),
            (self.inputs, inner),
        )
        return tuple(shape for way in ways for shape in (way, way[:1]))

    def parts(self, weights: Tensor) -> tuple[Tensor, ...]:
        """A vector such as ``weights`` as the layers' weights and biases."""
        pieces = weights.split([math.prod(shape) for shape in self.shapes])
        return tuple(piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True))


def untrained(
    inputs: int,
    hidden: int,
    latent: int,
    draws: torch.Generator,
) -> Autoencoder:
    """An untrained one: weights of variance 2 / fan-in (K. He et al., ICCV 2015), biases uniform up
    to 1 / √fan-in.
    """
    empty = Autoencoder(inputs, hidden, latent, torch.zeros(0))
    pieces = []
    for weight, _ in zip(empty.shapes[::2], empty.shapes[1::2], strict=True):
        scale = 1 / math.sqrt(weight[1])
        first = torch.randn(math.prod(weight), generator=draws, dtype=torch.float64)
        bias = torch.rand(weight[0], generator=draws, dtype=torch.float64)
        pieces += [first * math.sqrt(2) * scale, (2 * bias - 1) * scale]
    return empty._replace(weights=torch.cat(pieces))


def trained(
    network: Autoencoder,
    x: Tensor,
    epochs: int,
    draws: torch.Generator,
) -> Autoencoder:
    """It after passes over inputs (N, inputs) in [0, 1]: a fresh Adam, batches of 8.

    >>> draws = torch.Generator().manual_seed(0)
    >>> x, other = torch.full((4, 3), 0.9).double(), torch.full((1, 3), 0.1).double()
    >>> network = trained(untrained(3, 8, 2, draws), x, 200, draws)
    >>> known, unknown = errors(network, torch.cat([x[:1], other]), torch.zeros(1, 2).double())
    >>> bool(known < unknown)
    True
    """
    optimizer = adam()
    network = network._replace(weights=network.weights.clone())
    grad = torch.empty_like(network.weights)
    memory = optimizer.start(grad)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=draws)
        noise = torch.randn(len(x), network.latent, generator=draws, dtype=torch.float64)
        for batch, chance in zip(x[order].split(_BATCH), noise.split(_BATCH), strict=True):
            fill_gradient(network, batch, chance, grad)
            memory = optimizer.step(network.weights, grad, memory, 1.0)
    return network


def errors(
    network: Autoencoder,
    x: Tensor,
    noise: Tensor,
) -> Tensor:
    """‖x̂ - x‖² (N,) of inputs (N, inputs), the mean over L draws ``noise`` (L, latent), which all
    inputs meet.
    """
    parts = network.parts(network.weights)
    mean, spread = _encoded(parts, x)
    again = [_decoded(parts, mean + spread.div(2).exp() * chance) for chance in noise]
    return torch.stack([(seen - x).square().sum(1) for seen in again]).mean(0)


def fill_gradient(
    network: Autoencoder,
    x: Tensor,
    noise: Tensor,
    grad: Tensor,
) -> None:
    """Write the gradient of the loss on a batch into ``grad``, by hand: the layers are so small
    that autograd would take most of the time.
    """
    e1, a1, e2, a2, m, am, v, av, d1, b1, d2, b2, d3, b3 = network.parts(network.weights)
    one = linear(x, e1, a1).relu()
    two = linear(one, e2, a2).relu()
    mean, raw = linear(two, m, am), linear(two, v, av)
    spread = softplus(raw)
    scaled = spread.div(2).exp() * noise
    z = mean + scaled
    three = linear(z, d1, b1).relu()
    four = linear(three, d2, b2).relu()
    seen = linear(four, d3, b3).sigmoid()

    by_seen = 2 * (seen - x) * seen * (1 - seen)
    by_four = (by_seen @ d3) * (four > 0)
    by_three = (by_four @ d2) * (three > 0)
    by_z = by_three @ d1
    by_mean = by_z + mean
    by_raw = (by_z * scaled + spread.expm1()) / 2 * raw.sigmoid()
    by_two = (by_mean @ m + by_raw @ v) * (two > 0)
    by_one = (by_two @ e2) * (one > 0)

    back = (by_one, by_two, by_mean, by_raw, by_three, by_four, by_seen)
    into = (x, one, two, two, z, three, four)
    parts = network.parts(grad)
    for weight, bias, by, given in zip(parts[::2], parts[1::2], back, into, strict=True):
        torch.mm(by.T, given, out=weight)
        torch.sum(by, 0, out=bias)


def _encoded(parts: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, Tensor]:
    """μ and v of inputs."""
    h = linear(x, *parts[:2]).relu()
    h = linear(h, *parts[2:4]).relu()
    return linear(h, *parts[4:6]), softplus(linear(h, *parts[6:8]))


def _decoded(parts: tuple[Tensor, ...], z: Tensor) -> Tensor:
    """x̂ of latent vectors."""
    h = linear(z, *parts[8:10]).relu()
    h = linear(h, *parts[10:12]).relu()
    return linear(h, *parts[12:14]).sigmoid()
