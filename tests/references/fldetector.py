"""FLDetector with a dense matrix for the curvature and all splits of the scores tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LAW = False


def bfgs(steps: Sequence[Array], changes: Sequence[Array]) -> Array:
    """The matrix after one BFGS update for each pair, from a multiple of the identity that fits the
    last pair.
    """
    s, y = steps[-1], changes[-1]
    found = np.eye(len(s)) * (y @ s) / (s @ s)
    for s, y in zip(steps, changes, strict=True):
        found = found - np.outer(found @ s, s @ found) / (s @ found @ s) + np.outer(y, y) / (y @ s)
    return found


def spread(values: Sequence[float]) -> float:
    """Sum of squares around the mean."""
    return math.fsum((value - math.fsum(values) / len(values)) ** 2 for value in values)


def split(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The two clusters of the values with the smallest sum of squares."""
    ordered = sorted(values)
    return min(
        ((ordered[:k], ordered[k:]) for k in range(1, len(ordered))),
        key=lambda two: spread(two[0]) + spread(two[1]),
    )


def several(scores: Sequence[float], draws: Sequence[Sequence[float]]) -> bool:
    """Whether the gap statistic prefers two clusters to one."""
    low, high = min(scores), max(scores)
    scaled = [(score - low) / (high - low) for score in scores]

    def log(values: Sequence[float], clusters: int) -> float:
        return math.log(spread(values) if clusters == 1 else sum(map(spread, split(values))))

    gap = {
        k: math.log(np.mean([math.exp(log(draw, k)) for draw in draws])) - log(scaled, k)
        for k in (1, 2)
    }
    return bool(
        gap[1] < gap[2] - np.std([log(draw, 2) for draw in draws]) * math.sqrt(1 + 1 / len(draws))
    )


def fldetector(
    rounds: Sequence[tuple[Array, Mapping[int, Array]]],
    window: int,
    server_lr: float,
    draw: Callable[[int, int], Sequence[Sequence[float]]],
    warm: int = 0,
) -> list[tuple[dict[int, float], set[int]]]:
    """After each round (global model, updates by client) the scores and who is excluded, up to and
    with the round of the detection; draw(round, m) gives the uniform draws.
    """
    models = [model for model, _ in rounds]
    errors: dict[int, list[float]] = {}
    excluded: set[int] = set()
    scored = 0
    found: list[tuple[dict[int, float], set[int]]] = []
    for t, (model, given) in enumerate(rounds):
        known = {}
        for i in given:
            before = [r for r in range(t) if i in rounds[r][1]]
            if i not in excluded and before and before[-1] >= t - window - 1:
                known[i] = before[-1]
        first = max(t - window, 1)
        pairs = [
            (models[k] - models[k - 1], (models[k + 1] - 2 * models[k] + models[k - 1]) / server_lr)
            for k in range(first, t)
        ]
        if pairs and known and t > warm:
            curvature = bfgs(*zip(*pairs, strict=True))
            apart = {
                i: np.linalg.norm(given[i] - rounds[r][1][i] - curvature @ (model - models[r]))
                for i, r in known.items()
            }
            for i, error in apart.items():
                errors.setdefault(i, []).append(float(error / np.mean(list(apart.values()))))
            scored += 1
        scores = {i: float(np.mean(values[-window:])) for i, values in errors.items()}
        if (
            scored >= window
            and len(scores) > 2
            and several(list(scores.values()), draw(t, len(scores)))
        ):
            high = split(list(scores.values()))[1]
            excluded |= {i for i, score in scores.items() if score in high}
            return [*found, ({}, excluded)]
        found.append((scores, set(excluded)))
    return found
