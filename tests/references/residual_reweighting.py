"""Residual-based reweighting, coordinate by coordinate."""

from __future__ import annotations

import statistics

import numpy as np
import numpy.typing as npt

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES = {"strength": [0.5, 2.0, 10.0], "least": [0.0, 0.1, 0.5]}


def confidences(y: list[float], strength: float) -> tuple[list[float], list[float]]:
    """Each value's confidence, and the line at its rank."""
    n, ordered = len(y), sorted(y)
    slope = statistics.median(
        statistics.median((ordered[j] - ordered[i]) / (j - i) for j in range(n) if j != i)
        for i in range(n)
    )
    intercept = statistics.median(ordered) - slope * (n - 1) / 2
    ranks = [
        statistics.mean([float(place) for place in range(n) if ordered[place] == value])
        for value in y
    ]
    line = [intercept + slope * rank for rank in ranks]
    residuals = [value - at for value, at in zip(y, line, strict=True)]
    design = np.array([[1.0, float(place)] for place in range(n)])
    inverse = np.linalg.inv(design.T @ design)
    scale = 1.4826 * (1 + 5 / (n - 1)) * statistics.median(
        sorted(abs(r) for r in residuals)[1:]
    ) + 1e-7 * max(abs(v) for v in y)
    bound = strength * np.sqrt(2 / n)
    found = []
    for rank, residual in zip(ranks, residuals, strict=True):
        point = np.array([1.0, rank])
        free = np.sqrt(1 - point @ inverse @ point)
        e = residual / scale if scale else 0.0
        found.append(float(free / e * max(-bound, min(bound, e / free))) if e else 1.0)
    return found, line


def residual_reweighting(rows: Array, weight: Array, strength: float, least: float) -> Array:
    """The mean of the corrected rows, weighted by sample count times squared trust."""
    n = len(rows)
    if n < 3:
        return reference.weighted_mean(rows, weight)
    corrected, trust = rows.copy(), np.zeros(n)
    for j, y in enumerate(rows.T):
        found, line = confidences(y.tolist(), strength)
        spread = statistics.stdev(found)
        for k in range(n):
            trust[k] += found[k] * spread
            if found[k] < least:
                corrected[k, j] = line[k]
    trust = (trust / trust.max()) ** 2 if trust.max() else np.ones(n)
    return reference.weighted_mean(corrected, weight * trust)
