"""FedProx by its objective: local gradient descent on h(w) = F(w) + μ/2 ‖w - start‖², slopes by
central differences.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.reference import Array

LAW = False  # it trains, where the law aggregates
STEP = 1e-5


def fedprox(
    loss: Callable[[Array], float], start: Array, lr: float, steps: int, mu: float
) -> Array:
    """What a client has moved by after some steps."""

    def objective(w: Array) -> float:
        return loss(w) + mu / 2 * sum(float(w[j] - start[j]) ** 2 for j in range(len(w)))

    w = start.copy()
    for _ in range(steps):
        slope = np.zeros_like(w)
        for j in range(len(w)):
            beside = np.zeros_like(w)
            beside[j] = STEP
            slope[j] = (objective(w + beside) - objective(w - beside)) / (2 * STEP)
        w -= lr * slope
    return w - start
