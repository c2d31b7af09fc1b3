"""Rows of a table: equal rows stay on one side of a split, and the scale is that of the training
part.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from backstop.platform.contract import Data, Samples


def held_out(
    rows: Tensor,
    share: float,
    generator: torch.Generator,
) -> Tensor:
    """Which rows (N, F) are test rows, (N,) bool: all copies of ``share`` of the distinct rows;
    both sides get at least one where there are two.

    A model that remembers its training rows would be credited for their copies in the test part.

    >>> rows = torch.tensor([[1, 2], [3, 4], [1, 2], [5, 6]])
    >>> test = held_out(rows, 1 / 3, torch.Generator().manual_seed(0))
    >>> bool(test[0] == test[2]), len(rows[test].unique(dim=0))
    (True, 1)
    """
    # in sorted order, whatever the order of the rows
    distinct, which = torch.unique(rows, dim=0, return_inverse=True)
    order = torch.randperm(len(distinct), generator=generator)
    drawn = torch.zeros(len(distinct), dtype=torch.bool)
    drawn[order[: _count_held_out(len(distinct), share)]] = True
    return drawn[which]


def _count_held_out(rows: int, share: float) -> int:
    """The share of so many distinct rows, at least one and not all."""
    count = max(round(share * rows), 1)
    return min(count, rows - 1)


def repeats(train: Tensor, test: Tensor) -> tuple[int, int]:
    """How many rows of the training part equal an earlier one, and how many of the test part stand
    in the training part too.

    >>> repeats(torch.tensor([[1], [2], [1]]), torch.tensor([[2], [3]]))
    (1, 1)
    """
    seen = set(_bytes(train))
    copies = len(train) - len(seen)
    across = sum(row in seen for row in _bytes(test))
    return copies, across


def _bytes(x: Tensor) -> Iterator[bytes]:
    rows = x.flatten(1).contiguous()
    return (row.tobytes() for row in rows.numpy())


def parted(
    x: Tensor,
    y: Tensor,
    test: Tensor,
    *,
    classes: int,
    client: Tensor | None = None,
) -> Data:
    """The two parts as a dataset, with mean and std of the training part. ``client`` (N,) names the
    natural client of each row.
    """
    train = Samples(x[~test], y[~test])
    exact = train.x.double()
    mean, std = exact.mean(0), exact.std(0)
    return Data(
        train=train,
        test=Samples(x[test], y[test]),
        classes=classes,
        kind="table",
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        client=None if client is None else client[~test],
    )
