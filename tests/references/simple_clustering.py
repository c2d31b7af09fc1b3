"""Linkage by its definition: the distance of two clusters is taken anew over all pairs of their
rows.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations

import numpy as np
import numpy.typing as npt

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES: dict[str, list[object]] = {}


def millionths(one: Array, other: Array) -> int:
    """1 - cosine; 1 where a row is zero."""
    lengths = np.sqrt(sum(one**2)) * np.sqrt(sum(other**2))
    return round((1 - float(one @ other) / lengths) * 10**6) if lengths else 10**6


def mean(values: list[int]) -> Fraction:
    """Average linkage."""
    return Fraction(sum(values), len(values))


def larger(rows: Array, linkage: Callable[[list[int]], Fraction | int]) -> list[int]:
    """The members of the larger cluster; all where there is no minority."""

    def apart(one: list[int], other: list[int]) -> Fraction | int:
        return linkage([millionths(rows[i], rows[j]) for i in one for j in other])

    clusters = [[i] for i in range(len(rows))]
    while len(clusters) > 2:
        _, one, other = min(
            (apart(clusters[i], clusters[j]), i, j)
            for i, j in combinations(range(len(clusters)), 2)
        )
        clusters[one] += clusters.pop(other)
    if len(rows) == 1:
        return [0]
    small, large = sorted(clusters, key=len)
    return (
        sorted(small + large)
        if len(small) == len(large) or not apart(small, large)
        else sorted(large)
    )


def simple_clustering(rows: Array, weight: Array) -> Array:
    """The plain mean of the larger cluster."""
    kept = larger(rows, max)
    return reference.weighted_mean(rows[kept], np.ones(len(kept)))
