"""Divide and conquer, with the singular vectors of the matrix itself."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES = {
    "f": [None, 0, 1, 5],
    "repetitions": [1, 3],
    "coordinates": [2, 5, 10_000],
    "factor": [0.5, 1.0, 1.5],
}


def dnc(
    rows: Array,
    weight: Array,
    f: int | None,
    repetitions: int,
    coordinates: int,
    factor: float,
    generator: torch.Generator,
) -> Array:
    """The weighted mean of the rows that are good most often."""
    n, d = rows.shape
    bad = math.floor(Fraction(str(factor)) * reference.assumed(n, f))
    times = [0] * n
    for _ in range(repetitions):
        part = rows[:, torch.randperm(d, generator=generator).numpy()[:coordinates]]
        centered = part - part.mean(axis=0)
        direction = np.linalg.svd(centered)[2][0]
        scores = [float(row @ direction) ** 2 for row in centered]
        ties = [round(score / max(scores) * 1e9) if max(scores) > 0 else 0 for score in scores]
        for i in sorted(range(n), key=lambda i: (ties[i], i))[: max(n - bad, 1)]:
            times[i] += 1
    best = [i for i in range(n) if times[i] == max(times)]
    return reference.weighted_mean(rows[best], weight[best])
