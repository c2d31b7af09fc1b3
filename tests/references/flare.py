"""FLARE, pair by pair."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LAW = False  # needs the models' representations


def flare(seen: Array, voting: float, temperature: float, width: str) -> Array:
    """The trust scores, from the representations (n, m, h)."""
    n, m = len(seen), len(seen[0])
    every = [point for model in seen for point in model]
    squares = [
        float(sum((one - other) ** 2))
        for i, one in enumerate(every)
        for j, other in enumerate(every)
        if i != j
    ]
    scale = sorted(squares)[(len(squares) - 1) // 2] if width == "median" else float(seen.shape[2])

    def kernel(one: Array, other: Array) -> float:
        return math.exp(-float(sum((one - other) ** 2)) / scale)

    def within(model: Array) -> float:
        return float(
            sum(kernel(model[a], model[b]) for a in range(m) for b in range(m) if a != b)
        ) / (m * (m - 1))

    def discrepancy(i: int, j: int) -> float:
        across = float(sum(kernel(one, other) for one in seen[i] for other in seen[j])) / m**2
        return within(seen[i]) + within(seen[j]) - 2 * across

    votes = [0] * n
    for j in range(n):
        nearest = sorted((i for i in range(n) if i != j), key=lambda i: discrepancy(i, j))
        for i in nearest[: max(math.floor(voting * n + 1e-9) - 1, 0)]:
            votes[i] += 1
    if not any(votes):
        return np.full(n, 1 / n)
    trust = np.exp(np.array(votes) / (temperature * np.mean(votes)))
    return np.array(trust / trust.sum())
