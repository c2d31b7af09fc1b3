"""Snowball's bottom-up election with points and means instead of distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES = {"elected": [0.1, 0.3, 1.0], "far": [0.0, 0.2, 0.5]}


def squared(one: Array, other: Array) -> float:
    return math.fsum((one - other) ** 2)


def groups(points: Array, starts: Sequence[int]) -> list[list[int]]:
    """The clusters of k-means from these points on."""
    centers, found = [points[start] for start in starts], None
    while True:
        members: list[list[int]] = [[] for _ in centers]
        for i, point in enumerate(points):
            apart = [squared(point, center) for center in centers]
            members[apart.index(min(apart))].append(i)
        members = [those for those in members if those]
        if members == found:
            return members
        found = members
        centers = [points[those].mean(0) for those in members]


def separation(points: Array, clusters: Sequence[Sequence[int]]) -> float:
    """The Calinski-Harabasz score."""
    n, k = len(points), len(clusters)
    if not 1 < k < n:
        return 0.0
    middle = points.mean(0)
    total = math.fsum(squared(point, middle) for point in points)
    inside = math.fsum(
        squared(points[i], points[those].mean(0)) for those in clusters for i in those
    )
    if inside <= 1e-12 * total:
        return 1.0
    return (total - inside) / (k - 1) / (inside / (n - k))


def votes(points: Array, count: int) -> Array:
    """What each row gets in one layer, with so many far rows."""
    scores, voted = [], []
    for i in range(len(points)):
        others = [j for j in range(len(points)) if j != i]
        others.sort(key=lambda j: (-squared(points[i], points[j]), j))
        clusters = groups(points, [i, *others[:count]])
        scores.append(separation(points, clusters))
        voted.append(next(those for those in clusters if i in those))
    total = np.zeros(len(points))
    for score, those in zip(scores, voted, strict=True):
        same = max(scores) == min(scores)
        total[those] += 1.0 if same else (score - min(scores)) / (max(scores) - min(scores))
    return total


def chosen(rows: Array, layers: Sequence[slice], share: float, far: float) -> list[int]:
    """The rows with the most votes."""
    n = len(rows)
    count = min(max(math.floor(Fraction(str(far)) * n), 1), max(n - 2, 0))
    total = np.zeros(n)
    for layer in layers:
        points = rows[:, layer]
        if count and np.ptp(points, axis=0).any():
            total += votes(points, count)
    order = sorted(range(n), key=lambda i: (-round(float(total[i]), 9), i))
    return sorted(order[: math.ceil(Fraction(str(share)) * n)])


def snowball(rows: Array, weight: Array, elected: float, far: float) -> Array:
    """The weighted mean of those that the laws' only layer elects."""
    kept = chosen(rows, [slice(None)], elected, far)
    return reference.weighted_mean(rows[kept], weight[kept])
