"""How unequal the clients of a split are, in sizes, labels and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Data

CHUNK = 4096  # samples that are float64 at once
TABLE_DIMENSIONS = 2
ROUNDED = 1e-12  # of a mean square: a variance below is what rounding leaves of none


class Skew(NamedTuple):
    """Figures of a split; all are 0 where every client is like the whole, but ``ratio``, 1."""

    label_mean: float  # total variation between a client's labels and all clients', in the mean
    label_most: float  # of the client that is furthest away
    spread: float  # standard deviation of the sizes over their mean
    ratio: float  # the largest client over the smallest


def counts_of(
    shards: Sequence[Tensor],
    y: Tensor,
    classes: int,
) -> Tensor:
    """How many samples of each class each client has, (clients, classes)."""
    return torch.stack([y[shard].bincount(minlength=classes) for shard in shards])


def input_distances(x: Tensor, shards: Sequence[Tensor]) -> Tensor:
    """How far each client's inputs are from those of all clients, (clients,) float64; ``x``
    (N, …) are images or rows of a table.

    The features of a client have means μ_i and standard deviations σ_i, those of all clients
    together μ and σ. It is √(Σ ((μ_i - μ)² + (σ_i - σ)²) / Σ σ²) over the features, the
    2-Wasserstein distance of normal distributions in units of the whole's spread; those of a table,
    whose units differ, are divided by their σ first. It is not 0 where samples are dealt at random.

    >>> x = torch.tensor([[0.0], [2.0], [2.0], [4.0]])
    >>> input_distances(x, [torch.tensor([0, 1]), torch.tensor([2, 3])])[0].round(decimals=4)
    tensor(0.7654, dtype=torch.float64)
    """
    sizes = torch.tensor([len(shard) for shard in shards], dtype=torch.float64, device=x.device)
    sums, squares = (torch.stack(part) for part in zip(*map(_sums_of(x), shards), strict=True))
    mean, spread = _moments(sums, squares, sizes[:, None])
    whole_mean, whole_spread = _moments(sums.sum(0), squares.sum(0), sizes.sum())
    varies = whole_spread > 0
    if not varies.any():
        return torch.zeros_like(sizes)
    away = (mean - whole_mean).square() + (spread - whole_spread).square()
    variance = whole_spread.square()
    if x.dim() == TABLE_DIMENSIONS:
        return (away[:, varies] / variance[varies]).mean(1).sqrt()
    return (away.sum(1) / variance.sum()).sqrt()


def _sums_of(x: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Shard → the sums of its features (F,) and of their squares."""

    def sums(shard: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros(2, x[0].numel(), dtype=torch.float64, device=x.device)
        for part in shard.to(x.device).split(CHUNK):
            values = x[part].flatten(1).double()
            total += torch.stack([values.sum(0), values.square().sum(0)])
        return total[0], total[1]

    return sums


def _moments(
    sums: Tensor,
    squares: Tensor,
    count: Tensor,
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation from sums over ``count`` values."""
    mean = sums / count
    variance = (squares / count - mean.square()).clamp_min(0)
    return mean, variance.where(variance > ROUNDED * squares / count, 0.0).sqrt()


def split_figures(data: Data, shards: Sequence[Tensor]) -> dict[str, float]:
    """The figures of a split that a run tells once: labels and inputs in the mean over clients, the
    largest client over the smallest.
    """
    skew = skew_of(counts_of(shards, data.train.y.cpu(), data.classes))
    told = {"run/label_skew": skew.label_mean, "run/size_ratio": skew.ratio}
    if data.kind != "text":
        told["run/input_skew"] = float(input_distances(data.train.x, shards).mean())
    return told


def skew_of(counts: Tensor) -> Skew:
    """The figures of a split from its counts (clients, classes); no client is empty.

    The total variation of two distributions p and q is ½ Σ_c |p_c - q_c|: the share of a client's
    samples that would have to have another label for its labels to be those of the whole.

    >>> skew_of(torch.tensor([[4, 0], [0, 4]]))
    Skew(label_mean=0.5, label_most=0.5, spread=0.0, ratio=1.0)
    """
    sizes = counts.sum(1).double()
    shares = counts.double() / sizes[:, None]
    whole = counts.sum(0).double() / sizes.sum()
    away = (shares - whole).abs().sum(1) / 2
    return Skew(
        label_mean=float(away.mean()),
        label_most=float(away.max()),
        spread=float(sizes.std(correction=0) / sizes.mean()),
        ratio=float(sizes.max() / sizes.min()),
    )
