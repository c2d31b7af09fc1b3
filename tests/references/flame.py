"""FLAME with the cluster by its definition: rows are joined in the order of their angles until a
group holds more than half of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES = {"noise": [0.0, 0.001, 0.1]}


def cosine_distance(one: Array, other: Array) -> float:
    """To six decimals; 1 where a row is zero."""
    lengths = np.sqrt(sum(one**2)) * np.sqrt(sum(other**2))
    return round(1 - float(one @ other) / lengths, 6) if lengths else 1.0


def majority(rows: Array) -> list[int]:
    """The first connected group of more than half of the rows, as the largest distance of a
    connection grows.
    """
    n = len(rows)
    if n <= 2:
        return list(range(n))
    apart = {(i, j): cosine_distance(rows[i], rows[j]) for i in range(n) for j in range(i)}
    group = list(range(n))
    for distance in sorted(set(apart.values())):
        for (i, j), found in apart.items():
            if found == distance and group[i] != group[j]:
                group = [group[j] if label == group[i] else label for label in group]
        for label in group:
            if group.count(label) > n / 2:
                return [i for i in range(n) if group[i] == label]
    raise AssertionError("at the largest distance all rows are connected")


def flame(rows: Array, weight: Array, noise: float, generator: torch.Generator) -> Array:
    """The weighted mean of the majority's clipped rows, plus noise."""
    lengths = [float(np.sqrt(sum(row**2))) for row in rows]
    limit = float(np.median(lengths))
    kept = majority(rows)
    clipped = np.array(
        [rows[i] * min(1.0, limit / lengths[i]) if lengths[i] else rows[i] for i in kept]
    )
    draws = torch.randn(rows.shape[1], generator=generator).double().numpy()
    return reference.weighted_mean(clipped, weight[kept]) + noise * limit * draws
