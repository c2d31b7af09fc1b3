"""MASA on a linear classifier, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tests.references.softmax import cross_entropy, in_weights

Array = npt.NDArray[np.float64]

LAW = False  # needs a root set


def climbed(start: Array, epochs: Sequence[Sequence[tuple[Array, list[int]]]], lr: float) -> float:
    """Mean losses of all epochs, added up, on the way up with momentum 0.9."""
    weights, speed, total = start.copy(), np.zeros_like(start), 0.0
    for batches in epochs:
        for x, y in batches:
            loss, gradient = cross_entropy(x @ weights, y), in_weights(x, weights, y)
            gradient *= min(1.0, 20 / math.sqrt(math.fsum(gradient.flatten() ** 2)))
            speed = 0.9 * speed + gradient
            weights = weights + lr * speed
            total += loss / len(batches)
    return total


def kept(losses: Sequence[float], radius: float) -> list[int]:
    """Whose loss is less than ``radius`` standard deviations above the median."""
    middle, spread = float(np.median(losses)), float(np.std(losses))
    if not spread:
        return list(range(len(losses)))
    return [i for i, loss in enumerate(losses) if (loss - middle) / spread <= radius * (1 - 1e-9)]
