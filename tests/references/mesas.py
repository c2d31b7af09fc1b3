"""MESAS, model by model; its tests are scipy's, its clusters are joined pair by pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import numpy as np
import numpy.typing as npt

from tests.references.two_sides import p_values
from tests.views import server_view

Array = npt.NDArray[np.float64]

CHOICES = {"level": [0.001, 0.01, 0.15], "parts": ["layers", "model"]}


def measures(local: Array, first: Array) -> list[float]:
    """Of one model, or of one layer of it."""
    moved = [float(value) for value in local - first]
    lengths = math.sqrt(math.fsum(local**2)) * math.sqrt(math.fsum(first**2))
    cosine = math.fsum(local * first) / lengths if lengths else 0.0
    middle = math.fsum(moved) / len(moved)
    return [
        1 - cosine,
        math.sqrt(math.fsum(value**2 for value in moved)),
        float(sum(value > 0 for value in moved)),
        math.fsum((value - middle) ** 2 for value in moved) / len(moved),
        min((abs(value) for value in moved if value), default=0.0),
        max(abs(value) for value in moved),
    ]


def uneven(values: Sequence[int], level: float) -> bool:
    z = np.array(values, dtype=np.float64)
    middle = np.median(z)
    above, below = z[z > middle] - middle, middle - z[z < middle]
    far = z.std() > 0 and bool((abs(z - z.mean()) >= 3 * (1 - 1e-9) * z.std()).any())
    return far or any(one < level for one in p_values(above, below))


def smaller(values: Sequence[int]) -> set[int]:
    """The smaller of two clusters; nobody where neither is."""
    groups = [[i] for i in sorted(range(len(values)), key=lambda i: values[i])]

    def added(pair: tuple[int, int]) -> Fraction:
        (n, m), (one, other) = zip(
            *((len(groups[i]), sum(values[k] for k in groups[i])) for i in pair), strict=True
        )
        return Fraction(n * m, n + m) * (Fraction(one, n) - Fraction(other, m)) ** 2

    while len(groups) > 2:
        a, b = min(combinations(range(len(groups)), 2), key=added)
        groups[a] += groups.pop(b)
    low, high = sorted(groups, key=len)
    if len(low) == len(high) or len(set(values)) == 1:
        return set()
    return set(low)


def kept(table: Sequence[Sequence[float]], level: float) -> list[int]:
    """The models that are left, from a line of all of them for each measure."""
    n = len(table[0])
    left = list(range(n))
    while True:
        for line in table:
            some = [line[i] for i in left]
            largest = max(abs(value) for value in some) or 1.0
            values = [round(value / largest * 1e9) for value in some]
            gone = smaller(values) if len(values) > 1 and uneven(values, level) else set()
            if gone and 2 * (len(left) - len(gone)) > n:
                left = [number for i, number in enumerate(left) if i not in gone]
                break
        else:
            return left


def mesas(
    rows: Array,
    weight: Array,
    level: float,
    parts: str,
) -> Array:
    """The weighted mean of what is left, with the laws' global model."""
    view = server_view(rows.shape[1])
    first = view.params.double().numpy()
    spans = [slice(None)] + [slot.span for slot in view.layout] * (parts == "layers")
    lines = [
        [value for span in spans for value in measures(first[span] + row[span], first[span])]
        for row in rows
    ]
    left = kept(list(zip(*lines, strict=True)), level)
    return np.array(weight[left] @ rows[left] / weight[left].sum())
