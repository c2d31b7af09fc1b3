"""The weighted mean of rows, bit for bit the same with any number of threads."""

from __future__ import annotations

from torch import Tensor


def weighted_mean(rows: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean of rows (n, d) → (d,), added row by row in order.

    So it has the same bits with any number of threads. Rows of weight 0 are not read; without any
    weight the mean is zero.
    """
    total = weight.sum().item()
    mean = rows.new_zeros(rows.shape[1])  # there may be no row left
    for row, share in zip(rows, weight.tolist(), strict=True):
        if share > 0:
            mean.add_(row, alpha=share / total)
    return mean


def finite_rows(rows: Tensor) -> Tensor:
    """Which rows (n, d) hold no NaN and no infinity.

    Neither leaves a sum once it is in it, so one read tells, unless finite values add up to more
    than a float holds.
    """
    finite = rows.sum(1).isfinite()
    if finite.all():
        return finite
    return rows.amax(1).isfinite() & rows.amin(1).isfinite()
