"""Smallest maximum eigenvalue averaging with the covariance matrix itself, (d, d)."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from tests.reference import Array, weighted_mean

CHOICES = {"f": [None, 0, 1, 2]}


def smea(rows: Array, weight: Array, f: int | None) -> Array:
    """The weighted mean of the subset whose covariance has the smallest largest eigenvalue, by the
    greedy search where subsets are many.
    """
    n = len(rows)
    assumed = max(g for g in range(n) if 2 * g < n) if f is None else f
    chosen = (
        exact(rows, assumed) if comb(n, max(n - assumed, 1)) <= 20_000 else greedy(rows, assumed)
    )
    return weighted_mean(rows[chosen], weight[chosen])


def top(rows: Array) -> tuple[float, Array]:
    """Largest eigenvalue of the covariance, and its eigenvector."""
    apart = rows - rows.mean(0)
    values, vectors = np.linalg.eigh(apart.T @ apart / len(rows))
    return values[-1], vectors[:, -1]


def exact(rows: Array, f: int) -> list[int]:
    """Through all subsets."""
    return list(
        min(
            combinations(range(len(rows)), max(len(rows) - f, 1)),
            key=lambda subset: top(rows[list(subset)])[0],
        )
    )


def greedy(rows: Array, f: int) -> list[int]:
    """Take out f times the row that sticks out most along the top eigenvector."""
    left = list(range(len(rows)))
    for _ in range(f):
        _, direction = top(rows[left])
        along = (rows[left] - rows[left].mean(0)) @ direction
        del left[int(np.abs(along).argmax())]
    return left
