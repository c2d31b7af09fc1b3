"""Bulyan, row by row and coordinate by coordinate."""

from __future__ import annotations

import statistics

import numpy as np

from tests.reference import Array, distances

CHOICES = {"f": [None, 0, 1, 2, 5]}


def bulyan(rows: Array, weight: Array, f: int | None) -> Array:
    """The mean of the values nearest to the median of the rows that Krum selects one after the
    other.
    """
    n = len(rows)
    assumed = max((g for g in range(n) if 4 * g + 3 <= n), default=0) if f is None else f
    selected = rows[selection(rows, assumed)]
    keep = max(len(selected) - 2 * assumed, 1)
    found = []
    for values in selected.T.tolist():
        middle = statistics.median(values)
        found.append(
            statistics.fmean(sorted(values, key=lambda value: (abs(value - middle), value))[:keep])
        )
    return np.array(found)


def selection(rows: Array, f: int) -> list[int]:
    """Row numbers in the order in which Krum selects them."""
    table, left = distances(rows), list(range(len(rows)))
    selected: list[int] = []
    while len(selected) < max(len(rows) - 2 * f, 1):
        scores = {
            i: sum(sorted(table[i, j] for j in left if j != i)[: max(len(left) - f - 2, 1)])
            for i in left
        }
        best = min(left, key=lambda i: scores[i])
        selected.append(best)
        left.remove(best)
    return selected
