"""Centered clipping, step by step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CHOICES = {"radius": [1e-2, 1.0, 1e3], "iterations": [1, 3]}


def centered_clipping(
    rows: Array, weight: Array, radius: float, iterations: int, center: Array | None = None
) -> Array:
    """The center after its steps, from 0 unless told otherwise; every row counts the same."""
    v = np.zeros(rows.shape[1]) if center is None else center
    for _ in range(iterations):
        pulls = []
        for row in rows:
            length = np.sqrt(sum((row - v) ** 2))
            pulls.append((row - v) * (1.0 if length <= radius else radius / length))
        v = v + sum(pulls) / len(rows)
    return v
