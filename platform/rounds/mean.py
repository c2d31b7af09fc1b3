"""The weighted mean of rows, bit for bit the same with any number of threads."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_mean(rows: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean of rows (n, d) → (d,), added row by row in order: the same bits with any
    number of threads.

    Rows of weight 0 are not read; without any weight the mean is zero.
    """
    total = weight.sum().item()
    found = rows.new_zeros(rows.shape[1])  # there may be no row left
    for row, share in zip(rows, weight.tolist(), strict=True):
        if share > 0:
            found.add_(row, alpha=share / total)
    return found


def finite_rows(rows: Tensor) -> Tensor:
    """Which rows (n, d) hold no NaN and no infinity: their largest magnitude is finite, since a NaN
    is passed on.
    """
    return (
        rows.abs().amax(1).isfinite()
        if rows.shape[1]
        else torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    )
