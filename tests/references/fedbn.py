"""FedBN by its algorithm on plain vectors: each client descends, the server averages, and the
places that stay are nobody's but the client's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.reference import Array

LAW = False  # it trains, where the law aggregates
Slope = Callable[[Array], Array]


def fedbn(
    slopes: Sequence[Slope],
    start: Array,
    stays: Array,
    weight: Array,
    *,
    lr: float,
    rounds: int,
) -> list[Array]:
    """The clients' models after some rounds of one step each in which all of them take part."""
    models = [start.copy() for _ in slopes]
    for _ in range(rounds):
        models = [model - lr * slope(model) for model, slope in zip(models, slopes, strict=True)]
        for j in np.flatnonzero(stays == 0):
            shared = sum(w * model[j] for w, model in zip(weight, models, strict=True))
            for model in models:
                model[j] = shared / weight.sum()
    return models
