"""Mean around the median, coordinate by coordinate."""

from __future__ import annotations

import statistics

import numpy as np

from tests.reference import Array

CHOICES = {"f": [None, 0, 1, 5, 50]}


def meamed(rows: Array, weight: Array, f: int | None) -> Array:
    """The mean of the n - f values nearest to the median, the smaller one first where two are
    equally far.
    """
    n = len(rows)
    assumed = max(g for g in range(n) if 2 * g < n) if f is None else f
    found = []
    for values in rows.T.tolist():
        middle = statistics.median(values)
        found.append(
            statistics.fmean(
                sorted(values, key=lambda value: (abs(value - middle), value))[
                    : max(n - assumed, 1)
                ]
            )
        )
    return np.array(found)
