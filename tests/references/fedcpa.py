"""FedCPA, weight by weight, with sets."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tests.views import server_view

Array = npt.NDArray[np.float64]

CHOICES = {"share": [0.01, 0.2, 0.5]}


def critical(importance: Array, share: float) -> tuple[set[int], set[int]]:
    """The places of the most and of the least important weights."""
    count = max(math.floor(Fraction(str(share)) * len(importance)), 1)
    places = range(len(importance))
    top = sorted(places, key=lambda j: (-importance[j], j))[:count]
    bottom = sorted(places, key=lambda j: (importance[j], j))[:count]
    return set(top), set(bottom)


def correlation(one: list[float], other: list[float]) -> float:
    if len(one) < 2:
        return 0.0
    for values in (one, other):
        apart = np.array(values) - np.mean(values)
        if math.hypot(*apart) <= 1e-9 * math.hypot(*values):
            return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def similarity(one: Array, other: Array, share: float) -> float:
    """Of two models by the importance of their weights."""
    total = 0.0
    for mine, theirs in zip(critical(one, share), critical(other, share), strict=True):
        both = sorted(mine & theirs)
        jaccard = len(both) / len(mine | theirs)
        alike = correlation([one[j] for j in both], [other[j] for j in both])
        total += jaccard + (alike + 1) / 2
    return total / 2


def trust(total: list[float]) -> list[float]:
    """From similarities to factors in [0, 1]."""
    low, high = min(total), max(total)
    if low == high:
        return [1.0] * len(total)
    factors = []
    for value in total:
        scaled = (value - low) / (high - low)
        scaled = {0.0: 0.01, 1.0: 0.99}.get(scaled, scaled)
        factors.append(min(max(math.log(scaled / (1 - scaled)) + 0.5, 0.0), 1.0))
    return factors


def fedcpa(
    rows: Array,
    weight: Array,
    share: float,
    params: Array | None = None,
    last: Array | None = None,
) -> Array:
    """The mean of the trusted rows; in the first round unless the ``last`` model is there."""
    n, d = rows.shape
    if params is None:
        params = server_view(d).params.double().numpy()
    mean = rows.mean(0)
    common = abs((params - last) * params) if last is not None else abs(mean * (params + mean))
    each = [abs(row * (params + row)) for row in rows]
    total = []
    for i in range(n):
        pairs = [1.0 if i == j else similarity(each[i], each[j], share) for j in range(n)]
        total.append(round(float(np.mean(pairs)) + similarity(each[i], common, share), 9))
    factors = trust(total)
    kept = [factor * row for factor, row in zip(factors, rows, strict=True) if factor > 0]
    trusted: Array = np.mean(kept, axis=0)
    return trusted
