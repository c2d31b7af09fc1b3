"""LASA, row by row and layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES = {
    "sparsity": [0.0, 0.3, 0.9],
    "norm_radius": [0.5, 1.0, 2.0],
    "sign_radius": [0.5, 1.0, 2.0],
}


def usual(values: list[float], radius: float) -> list[bool]:
    """Whose |value - median| / std is below the radius, nine digits counted; all, where all values
    are equal.
    """
    spread = np.std(values)
    if spread == 0:
        return [True] * len(values)
    return [
        bool(abs(value - np.median(values)) / spread <= radius * (1 - 1e-9)) for value in values
    ]


def lasa(
    rows: Array,
    weight: Array,
    sparsity: float,
    norm_radius: float,
    sign_radius: float,
    layers: Sequence[int] | None = None,
) -> Array:
    """Each layer's weighted mean over its usual rows; ``layers`` holds the layers' sizes, one layer
    unless told otherwise.
    """
    n, d = rows.shape
    lengths = [math.sqrt(math.fsum(row**2)) for row in rows]
    middle = sorted(lengths)[(n - 1) // 2]
    keep = d - math.floor(Fraction(str(sparsity)) * d)
    sparse = np.zeros_like(rows)
    for i, row in enumerate(rows):
        smallest_kept = sorted(abs(row), reverse=True)[keep - 1]
        for j in range(d):
            if abs(row[j]) >= smallest_kept:
                sparse[i, j] = row[j] * (min(1.0, middle / lengths[i]) if lengths[i] else 1.0)
    means, start = [], 0
    for size in layers or [d]:
        layer = sparse[:, start : start + size]
        start += size
        norms = [math.sqrt(math.fsum(row**2)) for row in layer]
        purity = [0.5 * (1 + np.sign(row).sum() / max(abs(np.sign(row)).sum(), 1)) for row in layer]
        both = [
            one and other
            for one, other in zip(
                usual(norms, norm_radius), usual(purity, sign_radius), strict=True
            )
        ]
        kept = [i for i in range(n) if both[i]] or list(range(n))
        means.append(reference.weighted_mean(layer[kept], weight[kept]))
    return np.concatenate(means)
