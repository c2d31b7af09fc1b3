"""The smoothed Weiszfeld algorithm, step by step on the rows themselves."""

from __future__ import annotations

import numpy as np

from tests.reference import Array, weighted_mean

CHOICES = {"iterations": [1, 2, 3, 10, 300], "smoothing": [1e-6, 1e-3, 0.1, 100.0]}


def rfa(rows: Array, weight: Array, iterations: int, smoothing: float) -> Array:
    """The point after so many steps from the weighted mean."""
    point = weighted_mean(rows, weight)
    for _ in range(iterations):
        beta = [
            share / max(smoothing, float(np.linalg.norm(point - row)))
            for share, row in zip(weight, rows, strict=True)
        ]
        point = weighted_mean(rows, np.array(beta))
    return point
