"""BNGuard, client by client, with 2-means from every pair of starts that its data sheet names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LAW = False  # needs the clients' statistics


def bnguard(means: Sequence[Array], variances: Sequence[Array]) -> list[int]:
    """The numbers of the clients that are kept, from their running means and variances (c,)."""
    points = []
    for mean, variance in zip(means, variances, strict=True):
        points.append([value for one in (variance, mean) for value in (average(one), spread(one))])
    minority = smaller_cluster(np.array(points))
    if 2 * len(minority) == len(points):
        return list(range(len(points)))
    return [client for client in range(len(points)) if client not in minority]


def average(values: Array) -> float:
    """The mean."""
    return sum(float(value) for value in values) / len(values)


def spread(values: Array) -> float:
    """The unbiased variance; of one value 0."""
    if len(values) == 1:
        return 0.0
    middle = average(values)
    return sum((float(value) - middle) ** 2 for value in values) / (len(values) - 1)


def smaller_cluster(points: Array) -> set[int]:
    """The members of the smaller of two clusters, of either where they are of one size."""
    best, least = set[int](), np.inf
    for start in points:
        squared = [float(((point - start) ** 2).sum()) for point in points]
        centers = [start, points[int(np.argmax(squared))]]
        members = set[int]()
        for _ in range(100):
            before = members
            members = {i for i, point in enumerate(points) if nearer_to_second(point, centers)}
            if members == before:
                break
            groups = [[i for i in range(len(points)) if i not in members], sorted(members)]
            centers = [
                points[group].mean(0) if group else np.zeros(points.shape[1]) for group in groups
            ]
        total = sum(
            min(float(((point - center) ** 2).sum()) for center in centers) for point in points
        )
        if total < least:
            best, least = members, total
    others = set(range(len(points))) - best
    return min(best, others, key=len)


def nearer_to_second(point: Array, centers: Sequence[Array]) -> bool:
    """Whether a point is strictly nearer to the second center."""
    first, second = (float(((point - center) ** 2).sum()) for center in centers)
    return second < first
