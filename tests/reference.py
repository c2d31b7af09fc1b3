"""Slow and obvious references in NumPy: loops over coordinates and rows, float64, exact fractions.

Each defense here returns the aggregate (d,): the weighted mean of the rows that it leaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def weighted_mean(rows: Array, weight: Array) -> Array:
    """Σ weight_i rows_i / Σ weight_i."""
    total = np.zeros(rows.shape[1])
    for row, share in zip(rows, weight, strict=True):
        total += share * row
    return total / sum(weight)


def distances(rows: Array) -> Array:
    """Squared Euclidean distances of all pairs."""
    found = np.zeros((len(rows), len(rows)))
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            found[i, j] = math.fsum(
                (a - b) ** 2 for a, b in zip(one.tolist(), other.tolist(), strict=True)
            )
    return found


def sign_sum(values: Array) -> int:
    """|number of positive values - number of negative values|."""
    return abs(sum(1 for value in values if value > 0) - sum(1 for value in values if value < 0))


def fedavg(rows: Array, weight: Array) -> Array:
    """The plain weighted mean."""
    return weighted_mean(rows, weight)


def median(rows: Array, weight: Array) -> Array:
    """The middle value, or the mean of the two middle values."""
    n = len(rows)
    found = []
    for values in rows.T:
        ordered = sorted(values.tolist())
        found.append(ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2)
    return np.array(found)


def trimmed_mean(rows: Array, weight: Array, trim_fraction: float) -> Array:
    """The mean without the floor(trim_fraction * n) smallest and largest values."""
    per_side = math.floor(Fraction(str(trim_fraction)) * len(rows))
    found = []
    for values in rows.T:
        left = sorted(values.tolist())
        for _ in range(per_side):
            left.remove(min(left))
            left.remove(max(left))
        found.append(sum(left) / len(left))
    return np.array(found)


def and_mask(rows: Array, weight: Array, mask_threshold: float, rescale: bool) -> Array:
    """The weighted mean where |mean of signs| reaches the threshold, zero elsewhere; of a model of
    one tensor.
    """
    mean = weighted_mean(rows, weight)
    enough = [
        Fraction(sign_sum(values), len(rows)) >= Fraction(str(mask_threshold)) for values in rows.T
    ]
    kept = np.array([value if passes else 0.0 for value, passes in zip(mean, enough, strict=True)])
    return kept / (sum(enough) / len(enough)) if rescale and any(enough) else kept


def invariant(rows: Array, weight: Array, mask_threshold: float, trim_fraction: float) -> Array:
    """The trimmed mean where |mean of signs| reaches the threshold, zero elsewhere."""
    mean = trimmed_mean(rows, weight, trim_fraction)
    enough = [
        Fraction(sign_sum(values), len(rows)) >= Fraction(str(mask_threshold)) for values in rows.T
    ]
    return np.array([value if passes else 0.0 for value, passes in zip(mean, enough, strict=True)])


def norm_clip(rows: Array, weight: Array, norm: float, weights: str) -> Array:
    """The mean of rows shortened to the norm, plain or weighted."""
    lengths = [math.sqrt(math.fsum(value**2 for value in row.tolist())) for row in rows]
    return weighted_mean(
        np.array(
            [
                row if length <= norm else row * (norm / length)
                for row, length in zip(rows, lengths, strict=True)
            ]
        ),
        np.ones(len(rows)) if weights == "equal" else weight,
    )


def krum_scores(rows: Array, f: int | None) -> list[float]:
    """Sum of squared distances to the n - f - 2 nearest other rows, at least one where there is
    one.
    """
    n = len(rows)
    neighbors = max(n - assumed(n, f) - 2, 1)
    table = distances(rows)
    return [sum(sorted(table[i, j] for j in range(n) if j != i)[:neighbors]) for i in range(n)]


def assumed(n: int, f: int | None) -> int:
    """The given number of attackers, or the largest f with 2f + 2 < n."""
    return max((g for g in range(n) if 2 * g + 2 < n), default=0) if f is None else f


def krum(rows: Array, weight: Array, f: int | None) -> Array:
    """The row with the smallest score."""
    scores = krum_scores(rows, f)
    best: Array = rows[scores.index(min(scores))]
    return best


def multi_krum(rows: Array, weight: Array, f: int | None, keep: int | None) -> Array:
    """The weighted mean of the rows with the smallest scores."""
    scores = krum_scores(rows, f)
    count = keep or max(len(rows) - assumed(len(rows), f), 1)
    best = sorted(range(len(rows)), key=lambda i: (scores[i], i))[:count]
    return weighted_mean(rows[best], weight[best])


DEFENSES: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (fedavg, median, trimmed_mean, and_mask, invariant, norm_clip, krum, multi_krum)
}
