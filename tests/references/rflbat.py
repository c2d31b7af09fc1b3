"""RFLBAT from the centered matrix itself, with loops for k-means and the gap statistic."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES = {"eps1": [1.0, 1.2, 10.0], "eps2": [1.0, 1.2, 4.0]}


def rflbat(
    rows: Array, weight: Array, eps1: float, eps2: float, generator: torch.Generator
) -> Array:
    """The weighted mean of the rows that are left."""
    left = list(range(len(rows)))
    while True:
        points = plane(rows[left])
        passed = near(points, eps1)
        if all(passed):
            break
        left = [i for i, passes in zip(left, passed, strict=True) if passes]
    label = clusters(points, generator)
    values = []
    for number in range(max(label) + 1):
        members = [i for i, found in zip(left, label, strict=True) if found == number]
        values.append(
            np.median(
                [np.mean([cosine(rows[i], rows[j], i == j) for j in members]) for i in members]
            )
        )
    best = [place for place, number in enumerate(label) if number == int(np.argmin(values))]
    passed = near(points[best], eps2)
    kept = [left[place] for place, passes in zip(best, passed, strict=True) if passes]
    return reference.weighted_mean(rows[kept], weight[kept])


def plane(rows: Array) -> Array:
    """The first two principal components."""
    left, lengths, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    lengths = np.append(lengths, [0.0])[:2]
    left = np.hstack([left, np.zeros((len(rows), 1))])[:, :2]
    found: Array = left * lengths
    return found[:, ::-1][:, -min(2, len(rows)) :]


def near(points: Array, limit: float) -> list[bool]:
    """Which points are near all others, to nine digits."""
    total = [sum(float(np.linalg.norm(one - other)) for other in points) for one in points]
    return [one <= limit * float(np.median(total)) * (1 + 1e-9) for one in total]


def cosine(one: Array, other: Array, same: bool) -> float:
    """Of the angle; 0 where a row is zero, 1 with itself."""
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return 1.0 if same else float(one @ other) / lengths if lengths else 0.0


def clusters(points: Array, generator: torch.Generator) -> list[int]:
    """Cluster numbers by the gap statistic."""
    box = points.max(axis=0) - points.min(axis=0)
    if not box.any():
        return [0] * len(points)
    draws = torch.rand(10, *points.shape, generator=generator, dtype=torch.float64).numpy()
    label, before = [0] * len(points), -math.inf
    for k in range(1, min(10, len(points) - 1) + 1):
        found, spread = k_means(points, k)
        logarithms = [math.log(k_means(draw * box, k)[1]) for draw in draws]
        gap = float(np.mean(logarithms)) - math.log(spread) if spread else math.inf
        if before >= gap - float(np.std(logarithms)) * math.sqrt(1.1):
            break
        label, before = found, gap
        if spread <= 1e-12 * float(sum(box**2)):
            break
    return label


def k_means(points: Array, k: int) -> tuple[list[int], float]:
    """Lloyd's algorithm, best of n runs → cluster numbers, sum of squared distances."""
    runs = [lloyd(points, k, first) for first in range(len(points))]
    return min(runs, key=lambda run: run[1])


def lloyd(points: Array, k: int, first: int) -> tuple[list[int], float]:
    """From one point and those that are farthest from all before."""
    centers = [points[first]]
    while len(centers) < k:
        far = [min(float(sum((point - center) ** 2)) for center in centers) for point in points]
        centers.append(points[int(np.argmax(far))])
    for _ in range(100):
        label = [
            int(np.argmin([sum((point - center) ** 2) for center in centers])) for point in points
        ]
        members = [
            [point for point, found in zip(points, label, strict=True) if found == number]
            for number in range(k)
        ]
        moved = [
            np.mean(group, axis=0) if group else center
            for group, center in zip(members, centers, strict=True)
        ]
        if all((one == other).all() for one, other in zip(moved, centers, strict=True)):
            break
        centers = moved
    return label, float(
        sum(sum((point - centers[found]) ** 2) for point, found in zip(points, label, strict=True))
    )
