"""AlignIns, row by row and coordinate by coordinate."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tests import reference
from tests.views import server_view

Array = npt.NDArray[np.float64]

CHOICES = {
    "share": [0.1, 0.3, 1.0],
    "direction_radius": [0.5, 1.0, 2.0],
    "sign_radius": [0.5, 1.0, 2.0],
}


def cosine(one: Array, other: Array) -> float:
    lengths = math.sqrt(math.fsum(one**2)) * math.sqrt(math.fsum(other**2))
    return round(math.fsum(one * other) / lengths, 9) if lengths else 0.0


def agreement(row: Array, principal: Array, share: float) -> float:
    """The part of the row's largest coordinates with the sign of the majority."""
    count = max(math.floor(Fraction(str(share)) * len(row)), 1)
    smallest = sorted(abs(row), reverse=True)[count - 1]
    same = [
        np.sign(value) == sign
        for value, sign in zip(row, principal, strict=True)
        if abs(value) >= smallest
    ]
    return float(sum(same) / len(same))


def scores(values: list[float]) -> list[float]:
    """Median Z-scores; 0 where all values are equal."""
    spread = float(np.std(values))
    middle = float(np.median(values))
    return [abs(value - middle) / spread if spread else 0.0 for value in values]


def alignins(
    rows: Array,
    weight: Array,
    share: float,
    direction_radius: float,
    sign_radius: float,
    params: Array | None = None,
) -> Array:
    """The weighted mean of the clipped rows that pass; the laws' global model unless told
    otherwise.
    """
    n, d = rows.shape
    if params is None:
        params = server_view(d).params.double().numpy()
    principal = np.array([np.sign(np.sign(rows[:, j]).sum()) for j in range(d)])
    direction = scores([cosine(row, params) for row in rows])
    signs = scores([agreement(row, principal, share) for row in rows])
    kept = [
        i
        for i in range(n)
        if direction[i] <= direction_radius * (1 - 1e-9) and signs[i] <= sign_radius * (1 - 1e-9)
    ]
    if not kept:
        return np.zeros(d)
    lengths = [math.sqrt(math.fsum(row**2)) for row in rows]
    middle = sorted(lengths[i] for i in kept)[(len(kept) - 1) // 2]
    clipped = [rows[i] * (min(1.0, middle / lengths[i]) if lengths[i] else 1.0) for i in kept]
    return reference.weighted_mean(np.array(clipped), weight[kept])
