"""The covariance bound-agnostic filter with the covariance matrix itself, (d, d)."""

from __future__ import annotations

import numpy as np

from tests.reference import Array, weighted_mean

CHOICES = {"f": [None, 0, 1, 2, 5, 50]}


def caf(rows: Array, weight: Array, f: int | None) -> Array:
    """The mean of the step with the smallest largest eigenvalue."""
    n = len(rows)
    most = max(g for g in range(n) if 2 * g < n)
    assumed = most if f is None else min(f, most)
    c = np.ones(n)
    steps: list[tuple[float, Array]] = []
    while not steps or c.sum() > n - 2 * assumed:
        mean = weighted_mean(rows, weight * c)
        covariance = np.zeros((rows.shape[1], rows.shape[1]))
        for row, share in zip(rows, weight * c, strict=True):
            covariance += share * np.outer(row - mean, row - mean)
        values, vectors = np.linalg.eigh(covariance / (weight * c).sum())
        steps.append((float(values[-1]), mean))
        tau = np.array([float((row - mean) @ vectors[:, -1]) ** 2 for row in rows])
        largest = max(value for value, share in zip(tau, c, strict=True) if share > 0)
        # rounding alone: the rows left are equal
        if largest <= 1e-24 * np.abs(rows[c > 0]).max() ** 2:
            break
        c = np.where(c > 0, c * (1 - tau / largest), 0)
    return min(steps, key=lambda step: step[0])[1]
