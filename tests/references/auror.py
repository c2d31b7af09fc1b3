"""Auror: for each coordinate all splits of the ordered values are tried."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES = {"separation": [0.0, 3.0, 4.0], "share": [0.0, 0.3, 0.5, 1.0]}


def spread(values: list[float]) -> float:
    """Sum of squares around the mean."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)


def two_means(values: list[float]) -> tuple[list[float], list[float]]:
    """The lower and the upper cluster; of splits that are equally good (to rounding) the lowest."""
    ordered = sorted(values)
    costs = [spread(ordered[:k]) + spread(ordered[k:]) for k in range(1, len(ordered))]
    k = 1 + next(i for i, cost in enumerate(costs) if cost <= min(costs) + 1e-12 * spread(ordered))
    return ordered[:k], ordered[k:]


def auror(rows: Array, weight: Array, separation: float, share: float) -> Array:
    """The weighted mean of the clients that are in the minority seldom enough."""
    n, times, indicative = len(rows), [0] * len(rows), 0
    for column in rows.T if n > 2 else ():
        low, high = two_means(column.tolist())
        apart = math.fsum(high) / len(high) - math.fsum(low) / len(low)
        ordered = sorted(column.tolist())
        if (
            apart
            <= separation * min(ordered[k + n // 2] - ordered[k] for k in range(n - n // 2)) / 1.349
        ):
            continue
        indicative += 1
        minority = low if len(low) < len(high) else high if len(high) < len(low) else []
        for i, value in enumerate(column.tolist()):
            times[i] += value in minority
    bound = max(math.floor(Fraction(str(share)) * indicative), min(times))
    kept = [i for i in range(n) if times[i] <= bound]
    return reference.weighted_mean(rows[kept], weight[kept])
