"""SparseFed, step by step."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES = {
    "norm": [1e-2, 1.0, 1e3],
    "share": [0.01, 0.3, 0.5, 1.0],
    "weights": ["equal", "samples"],
}


def sparsefed(
    rows: Array, weight: Array, norm: float, share: float, weights: str, memory: Array | None = None
) -> Array:
    """What goes through: the largest coordinates of memory and mean, of equals the first."""
    total = reference.norm_clip(rows, weight, norm, weights) + (0.0 if memory is None else memory)
    k = math.ceil(Fraction(str(share)) * len(total))
    largest = sorted(range(len(total)), key=lambda j: (-abs(total[j]), j))[:k]
    return np.array([total[j] if j in largest else 0.0 for j in range(len(total))])
