"""FLShield, client by client; the models' losses come from whoever calls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LAW = False  # needs the models' losses


def length(row: Array) -> float:
    return math.sqrt(math.fsum(row**2))


def representatives(rows: Array, alpha: float) -> Array:
    """What stands for each row: itself, and a little of those that point the same way."""
    made = []
    for i, row in enumerate(rows):
        trust = []
        for j, other in enumerate(rows):
            if j == i or not length(row) or not length(other):
                trust.append(0.0)
                continue
            cosine = math.fsum(row * other) / length(row) / length(other)
            trust.append(max(cosine, 0.0) * min(1.0, length(row) / length(other)))
        if sum(trust) <= 0:
            made.append(row)
            continue
        others = sum((one * other for one, other in zip(trust, rows, strict=True)), 0 * row)
        made.append((1 - alpha) * row + alpha * others / sum(trust))
    return np.array(made)


def impact(before: Sequence[float], after: Sequence[float], y: Sequence[int], label: int) -> float:
    """By how much the loss of the first thirty samples of a class falls; NaN without any."""
    here = [one - other for one, other, of in zip(before, after, y, strict=True) if of == label]
    return float(np.mean(here[:30])) if here else math.nan


def larger_cluster(points: Array) -> list[int]:
    """The best of two means that begin at a point and the one farthest from it."""
    best, chosen = math.inf, list[int]()
    for point in points:
        apart = [math.dist(point, other) for other in points]
        far = apart.index(max(apart))
        centers, member = [point, points[far]], list[int]()
        while True:
            near = [int(math.dist(p, centers[1]) < math.dist(p, centers[0])) for p in points]
            if near == member:
                break
            member = near
            for number in (0, 1):
                group = [p for p, of in zip(points, member, strict=True) if of == number]
                centers[number] = np.mean(group, axis=0) if group else centers[number]
        loss = sum(math.dist(p, centers[of]) ** 2 for p, of in zip(points, member, strict=True))
        if loss < best - 1e-12:
            best, chosen = loss, member
    larger = int(2 * sum(chosen) > len(chosen))
    return [i for i, of in enumerate(chosen) if of == larger]


def kept(impacts: Array) -> list[int]:
    """The numbers of the models that are kept, by the voters' impacts (m, n, classes), NaN where a
    voter has no sample.
    """
    voters, models, classes = impacts.shape
    filled = impacts.copy()
    for i in range(models):
        for label in range(classes):
            known = [value for value in impacts[:, i, label] if not math.isnan(value)]
            for voter in range(voters):
                if math.isnan(impacts[voter, i, label]):
                    filled[voter, i, label] = np.mean(known) if known else 0.0
    trusted = larger_cluster(filled.reshape(voters, -1))
    seen = [c for c in range(classes) if not np.isnan(impacts[:, :, c]).all()]
    worst = [min(np.mean(filled[trusted, i, c]) for c in seen) for i in range(models)]
    order = sorted(range(models), key=lambda i: (-worst[i], i))
    return sorted(order[: models - models // 2])
