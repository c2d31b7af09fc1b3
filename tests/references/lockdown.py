"""Lockdown by its algorithm on plain vectors: every client descends within its mask, prunes it and
grows it; the server averages, counts the masks and cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, cos, pi

import numpy as np

from tests.reference import Array

LAW = False  # it trains, where the law aggregates
Slope = Callable[[Array], Array]


def lockdown(
    slopes: Sequence[Slope],
    start: Array,
    first: Array,
    spans: Sequence[slice],
    weight: Array,
    *,
    lr: float,
    rounds: int,
    steps: int,
    anneal: float,
    threshold: float,
    horizon: int,
) -> tuple[Array, Array, list[Array]]:
    """The global model, the one that is cut, and the masks, after some rounds in which all clients
    take part.
    """
    w, masks = start.copy(), [first.copy() for _ in slopes]
    for t in range(rounds):
        moved = np.zeros_like(w)
        for k, slope in enumerate(slopes):
            mask = _grown(masks[k], first, slope(w * masks[k]), spans)
            local = w * mask
            for _ in range(steps):
                local = local - lr * slope(local) * mask
            share = anneal / 2 * (1 + cos(pi * min(t / horizon, 1.0)))
            masks[k] = _pruned(mask, local, share, spans)
            moved += weight[k] * masks[k] * (local - w)
        w = w + moved / weight.sum()
    votes = sum(masks) / len(masks)
    return w, np.where(votes >= threshold, w, 0.0), masks


def _grown(mask: Array, first: Array, slope: Array, spans: Sequence[slice]) -> Array:
    grown = mask.copy()
    for span in spans:
        outside = [j for j in range(span.start, span.stop) if mask[j] == 0]
        count = int(first[span].sum() - mask[span].sum())
        for j in sorted(outside, key=lambda j: (-abs(slope[j]), j))[:count]:
            grown[j] = 1.0
    return grown


def _pruned(mask: Array, weights: Array, share: float, spans: Sequence[slice]) -> Array:
    left = mask.copy()
    for span in spans:
        inside = [j for j in range(span.start, span.stop) if mask[j] > 0]
        count = ceil(share * len(inside))
        for j in sorted(inside, key=lambda j: (abs(weights[j]), j))[:count]:
            left[j] = 0.0
    return left
