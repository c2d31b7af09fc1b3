"""Indicator on a linear classifier, whose gradient is written out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LAW = False  # needs a model


def scores(params: Array, x: Array, classes: int) -> Array:
    """Softmax scores (b, classes) of a linear classifier with params (features · classes,)."""
    logits = x @ params.reshape(-1, classes)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.array(powers / powers.sum(axis=1, keepdims=True))


def planted(
    start: Array,
    x: Array,
    y: Sequence[int],
    classes: int,
    epochs: int,
    batch: int,
    lr: float,
    penalty: float,
    decay: float,
) -> Array:
    """The movement that teaches the samples: SGD with momentum 0.9, whose rate falls, on
    cross-entropy and half the length moved.
    """
    params, velocity = start.copy(), np.zeros_like(start)
    for epoch in range(epochs):
        rate = lr * 0.8 ** len([passes for passes in (10, 20, 30, 160) if epoch >= passes])
        for first in range(0, len(x), batch):
            some, labels = x[first : first + batch], list(y)[first : first + batch]
            wrong = scores(params, some, classes) - np.eye(classes)[labels]
            apart = params - start
            length = float(np.sqrt(sum(apart**2)))
            pull = apart / length if length else apart
            velocity = (
                0.9 * velocity
                + (some.T @ wrong).flatten() / len(some)
                + penalty / 2 * pull
                + decay * params
            )
            params = params - rate * velocity
    return params - start


def indicator(
    models: Array, x: Array, y: Sequence[int], classes: int, threshold: float
) -> list[int]:
    """The numbers of the local models (n, d) that are kept."""
    kept = []
    for k, model in enumerate(models):
        guess = scores(model, x, classes).argmax(axis=1)
        best = max(
            np.mean([guess[i] == c for i in range(len(y)) if y[i] == c]) for c in range(classes)
        )
        if best < threshold:
            kept.append(k)
    return kept
