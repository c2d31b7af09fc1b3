"""Ditto by its algorithm on plain vectors: a global model by averaging, and beside it a model of
each client's own that descends F_k(v) + λ/2 ‖v - w‖².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.reference import Array

LAW = False  # it trains, where the law aggregates
Slope = Callable[[Array], Array]


def ditto(
    slopes: Sequence[Slope],
    start: Array,
    weight: Array,
    *,
    lr: float,
    rounds: int,
    steps: int,
    pull: float,
) -> tuple[Array, list[Array]]:
    """The global model and the clients' own after some rounds in which all of them take part."""
    w, own = start.copy(), [start.copy() for _ in slopes]
    for _ in range(rounds):
        moved = np.zeros_like(w)
        for k, slope in enumerate(slopes):
            local = w.copy()
            for _ in range(steps):
                own[k] = own[k] - lr * (slope(own[k]) + pull * (own[k] - w))
                local = local - lr * slope(local)
            moved += weight[k] * (local - w)
        w = w + moved / weight.sum()
    return w, own
