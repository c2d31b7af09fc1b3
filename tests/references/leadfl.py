"""LeadFL by its formula, value by value: plain steps, each but the first then corrected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np

from tests.reference import Array

LAW = False  # it trains, where the law aggregates


def leadfl(
    slope: Callable[[Array], Array],
    start: Array,
    tensors: Sequence[Sequence[int]],
    *,
    lr: float,
    steps: int,
    weight: float,
    bound: float,
    rate: float,
) -> Array:
    """The model after some steps; ``tensors`` holds the places of each weight tensor."""
    w = start.copy()
    last: Array | None = None
    for _ in range(steps):
        before, slopes = w.copy(), slope(w)
        w = w - lr * slopes
        if last is not None:
            step = np.zeros_like(w)
            for places in tensors:
                r = [w[j] - before[j] - last[j] - rate for j in places]
                length = sqrt(sum(value * value for value in r))
                for j, value in zip(places, r, strict=True):
                    step[j] = min(max(weight * value / length, -bound), bound) if length else 0.0
            w = w - rate * step
        last = slopes
    return w
