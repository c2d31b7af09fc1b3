"""Local differential privacy: one gradient after another, shortened to the clip, plus a multiple of
the clip of the draws.
"""

from __future__ import annotations

import math

import numpy as np

from tests.reference import Array

LAW = False  # it changes gradients, where the law aggregates


def local_dp(grads: Array, draws: Array, clip: float, noise: float) -> Array:
    """The gradients (k, d) of k clients after the rule."""
    found = np.zeros_like(grads)
    for i, grad in enumerate(grads):
        length = math.sqrt(math.fsum(value**2 for value in grad.tolist()))
        factor = clip / length if length > clip else 1.0
        for j in range(len(grad)):
            found[i, j] = grad[j] * factor + noise * clip * draws[i, j]
    return found
