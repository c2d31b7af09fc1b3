"""How unequal the clients of a split are, in sizes and in labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


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
