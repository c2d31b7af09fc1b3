"""BaFFLe's vote, model by model and sample by sample."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LAW = False  # needs the models' predictions


def factor(point: Array, others: Sequence[Array], k: int) -> float:
    """The local outlier factor of a point that is none of the others."""
    k = min(k, len(others) - 1)

    def nearest(distances: list[tuple[float, int]]) -> tuple[float, list[int]]:
        radius = sorted(distances)[k - 1][0]
        return radius, [index for distance, index in distances if distance <= radius]

    def gaps(of: Array, without: int | None = None) -> list[tuple[float, int]]:
        return [
            (math.dist(of, other), index) for index, other in enumerate(others) if index != without
        ]

    spheres = [nearest(gaps(other, index)) for index, other in enumerate(others)]

    def density(of: Array, around: list[int]) -> float:
        reach = [max(spheres[index][0], math.dist(of, others[index])) for index in around]
        return 1 / (sum(reach) / len(reach) + 1e-10)

    _, around = nearest(gaps(point))
    theirs = [density(others[index], spheres[index][1]) for index in around]
    return sum(theirs) / len(theirs) / density(point, around)


def accepts(predicted: Sequence[Sequence[int]], y: Sequence[int], classes: int, c: float) -> bool:
    """Whether a client accepts the last of the models that say this of its samples."""
    errors = []
    for said in predicted:
        missed = [sum(t == a != s for s, t in zip(said, y, strict=True)) for a in range(classes)]
        claimed = [sum(s == a != t for s, t in zip(said, y, strict=True)) for a in range(classes)]
        errors.append(np.array([*missed, *claimed], dtype=np.float64))
    steps = [one - other for one, other in itertools.pairwise(errors)]
    last = len(steps) - 1  # ℓ; steps[i - 1] is v_i
    k = math.ceil(last / 2)
    usual = [
        factor(steps[i - 1], steps[: i - 1], k)
        for i in range(math.ceil(3 * last / 4), last + 1)
        if i >= 3  # two earlier ones at least
    ]
    limit = c * sum(usual) / len(usual)
    return factor(steps[-1], steps[:-1], k) <= limit * (1 + 1e-9)
