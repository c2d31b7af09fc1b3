"""FreqFed with SciPy's cosine transform, coefficient by coefficient, and scikit-learn's HDBSCAN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn
from sklearn.cluster import HDBSCAN

from tests import reference
from tests.views import server_view

Array = npt.NDArray[np.float64]

CHOICES = {"layers": ["all", "head"], "compared": ["updates", "models"]}


def low(matrix: Array) -> list[float]:
    """The low frequencies, line by line."""
    height, width = matrix.shape
    spectrum = dctn(matrix, type=2, norm="ortho")
    return [
        float(spectrum[a, b])
        for a in range(max(height // 2, 1))
        for b in range(max(width // 2, 1))
        if a + b <= (height + width) // 4
    ]


def distances(features: Sequence[Sequence[float]]) -> Array:
    """1 - cosine, in millionths of the largest."""
    n = len(features)
    apart = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            lengths = math.hypot(*features[i]) * math.hypot(*features[j])
            product = math.fsum(a * b for a, b in zip(features[i], features[j], strict=True))
            if i != j:
                apart[i, j] = 1 - product / lengths if lengths else 1.0
    # less is rounding
    return np.round(apart / apart.max() * 1e6) if apart.max() > 1e-13 else np.zeros((n, n))


def largest(apart: Array) -> list[int]:
    """The rows of the largest cluster, the tightest of several."""
    n = len(apart)
    if n <= 2 or not apart.any():
        return list(range(n))
    label = HDBSCAN(min_cluster_size=2, min_samples=2, metric="precomputed", copy=True).fit_predict(
        apart
    )
    members = [[i for i in range(n) if label[i] == number] for number in set(label) - {-1}]
    if not members:
        return list(range(n))
    return max(
        members, key=lambda those: (len(those), -sum(apart[i, j] for i in those for j in those))
    )


def kept(rows: Array, shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Who is kept, of rows whose weights have these shapes, one after another."""
    features = []
    for row in rows:
        start, found = 0, []
        for shape in shapes:
            size = math.prod(shape)
            found += low(row[start : start + size].reshape(shape[0], -1))
            start += size
        features.append(found)
    return largest(distances(features))


def freqfed(rows: Array, weight: Array, layers: str, compared: str) -> Array:
    """The weighted mean of the largest cluster, in the laws' views."""
    d = rows.shape[1]
    view = server_view(d)
    shape = view.head[0].shape if layers == "head" else (d,)
    vectors = rows
    if compared == "models":
        models = rows.astype(np.float32) + view.params.numpy()
        vectors = models.astype(np.float64)
    those = kept(vectors, [shape])
    return reference.weighted_mean(rows[those], weight[those])
