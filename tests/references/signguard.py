"""SignGuard, with a Mean-Shift of its own."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES = {
    "low": [0.0, 0.1, 0.9],
    "high": [1.0, 3.0],
    "share": [0.1, 0.5, 1.0],
    "coordinates": ["block", "spread"],
}


def largest_cluster(points: Array) -> list[bool]:
    """Flat kernel, every point a seed: shift to the mean of the points inside the bandwidth until
    it moves no more.
    """
    n = len(points)
    apart = np.array([[math.dist(a, b) for b in points] for a in points])
    bandwidth = float(np.mean([sorted(row)[max(int(n / 2), 1) - 1] for row in apart])) * (1 + 1e-9)
    if bandwidth == 0:
        return [True] * n
    modes: dict[tuple[float, ...], int] = {}
    for seed in points:
        center = seed
        for _ in range(300):
            inside = [point for point in points if math.dist(point, center) <= bandwidth]
            before, center = center, np.mean(inside, axis=0)
            if math.dist(before, center) <= 1e-3 * bandwidth:
                break
        modes[tuple(center.tolist())] = len(inside)
    centers: list[tuple[float, ...]] = []
    for mode in sorted(modes, key=lambda mode: (modes[mode], mode), reverse=True):
        if all(math.dist(mode, center) > bandwidth for center in centers):
            centers.append(mode)
    labels = []
    for point in points:
        nearest = min(range(len(centers)), key=lambda c: math.dist(point, centers[c]))
        labels.append(nearest if math.dist(point, centers[nearest]) <= bandwidth else -1)
    sizes = [labels.count(c) for c in range(len(centers))]
    return [label == sizes.index(max(sizes)) for label in labels]


def signguard(
    rows: Array,
    weight: Array,
    low: float,
    high: float,
    share: float,
    coordinates: str,
    generator: torch.Generator,
) -> Array:
    """The weighted mean of the clipped rows that pass both filters."""
    n, d = rows.shape
    lengths = [math.sqrt(math.fsum(row**2)) for row in rows]
    middle = sorted(lengths)[(n - 1) // 2]
    usual = [low * middle <= length <= high * middle for length in lengths]
    count = math.ceil(Fraction(str(share)) * d)
    if coordinates == "spread":
        chosen = torch.randperm(d, generator=generator).tolist()[:count]
    else:
        first = int(torch.randint(max(d - count, 1), (), generator=generator))
        chosen = list(range(first, first + count))
    part = rows[:, chosen]
    alike = largest_cluster(
        np.array([[np.mean(row > 0), np.mean(row == 0), np.mean(row < 0)] for row in part])
    )
    kept = [i for i in range(n) if usual[i] and alike[i]] or [i for i in range(n) if usual[i]]
    clipped = np.array(
        [
            row * min(1.0, middle / length) if length else row
            for row, length in zip(rows, lengths, strict=True)
        ]
    )
    return reference.weighted_mean(clipped[kept], weight[kept])
