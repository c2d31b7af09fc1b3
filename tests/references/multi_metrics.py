"""Multi-metrics, pair by pair, with the inverse by its eigenvalues."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tests import reference
from tests.views import server_view

Array = npt.NDArray[np.float64]

CHOICES = {"share": [0.1, 0.3, 1.0], "compared": ["models", "updates"]}


def length(vector: Array) -> float:
    return math.sqrt(math.fsum(vector**2))


def features(vectors: Array) -> Array:
    """(n, 3): the sums over the other rows of cosine distance squared, city-block distance and
    difference of lengths.
    """
    sums = np.zeros((len(vectors), 3))
    for i, one in enumerate(vectors):
        for j, other in enumerate(vectors):
            if i != j:
                lengths = length(one) * length(other)
                angle = 1 - math.fsum(one * other) / lengths if lengths else 1.0
                city = math.fsum(abs(one - other))
                sums[i] += [angle**2, city, abs(length(one) - length(other))]
    return sums


def scores(sums: Array) -> list[float]:
    """tᵀ Σ⁻¹ t, over the principal axes of what varies."""
    columns = []
    for column in sums.T:
        spread = float(np.std(column))
        if spread > 1e-9 * max(column):
            columns.append(column / spread)
    if not columns or len(sums) < 2:
        return [0.0] * len(sums)
    units = np.array(columns).T
    values, axes = np.linalg.eigh(np.atleast_2d(np.cov(units.T, bias=True)))
    total = np.zeros(len(sums))
    for value, axis in zip(values, axes.T, strict=True):
        if value > 1e-9 * values[-1]:
            total += (units @ axis) ** 2 / value
    return [round(float(score / total.max() * 1e9)) for score in total]


def multi_metrics(
    rows: Array, weight: Array, share: float, compared: str, params: Array | None = None
) -> Array:
    """The weighted mean of the rows with the lowest scores; the laws' global model unless told
    otherwise.
    """
    n, d = rows.shape
    if params is None:
        params = server_view(d).params.double().numpy()
    # a model is a float32 vector
    models = (rows.astype(np.float32) + params.astype(np.float32)).astype(np.float64)
    found = scores(features(models if compared == "models" else rows))
    count = max(math.floor(Fraction(str(share)) * n), 1)
    kept = sorted(range(n), key=lambda i: (found[i], i))[:count]
    return reference.weighted_mean(rows[kept], weight[kept])
