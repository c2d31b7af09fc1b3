"""Nearest neighbor mixing, row by row."""

from __future__ import annotations

import numpy as np

from tests.reference import Array, distances, weighted_mean

CHOICES = {"f": [None, 0, 1, 5, 50]}


def nnm(rows: Array, weight: Array, f: int | None) -> Array:
    """The weighted mean of the mixtures."""
    return weighted_mean(mixtures(rows, weight, f), weight)


def mixtures(rows: Array, weight: Array, f: int | None) -> Array:
    """For each row the weighted mean of itself and its nearest n - f - 1 others."""
    n, table, found = len(rows), distances(rows), []
    assumed = max(g for g in range(n) if 2 * g < n) if f is None else f
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: (table[i, j], j))
        mixed = [i, *others][: max(n - assumed, 1)]
        found.append(weighted_mean(rows[mixed], weight[mixed]))
    return np.array(found)
