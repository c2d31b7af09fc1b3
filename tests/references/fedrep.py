"""FedRep by its algorithm on plain vectors: the head descends alone, then the rest descends alone,
and the server averages the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.reference import Array

LAW = False  # it trains, where the law aggregates
Slope = Callable[[Array], Array]


def fedrep(
    slopes: Sequence[Slope],
    start: Array,
    head: Array,
    weight: Array,
    *,
    lr: float,
    rounds: int,
    head_steps: int,
    steps: int,
) -> list[Array]:
    """The clients' models after some rounds in which all of them take part."""
    models = [start.copy() for _ in slopes]
    for _ in range(rounds):
        for k, slope in enumerate(slopes):
            for _ in range(head_steps):
                models[k] = models[k] - lr * slope(models[k]) * (head != 0)
            for _ in range(steps):
                models[k] = models[k] - lr * slope(models[k]) * (head == 0)
        for j in np.flatnonzero(head == 0):
            shared = sum(w * model[j] for w, model in zip(weight, models, strict=True))
            for model in models:
                model[j] = shared / weight.sum()
    return models
