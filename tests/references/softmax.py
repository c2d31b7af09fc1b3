"""A linear model under cross-entropy in float64, its gradients by hand: what triggers are learned
on where a step is compared.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def chances(logits: Array) -> Array:
    """The softmax of one line of logits."""
    powers = [math.exp(value - max(logits)) for value in logits]
    return np.array(powers) / math.fsum(powers)


def cross_entropy(logits: Array, y: list[int]) -> float:
    """The mean over the lines."""
    lost = [-math.log(chances(line)[label]) for line, label in zip(logits, y, strict=True)]
    return math.fsum(lost) / len(y)


def errors(x: Array, weight: Array, y: list[int]) -> Array:
    """The gradient of each sample's loss in its logits, over the number of samples."""
    lines = []
    for line, label in zip(x, y, strict=True):
        error = chances(line @ weight)
        error[label] -= 1
        lines.append(error / len(y))
    return np.array(lines)


def in_weights(x: Array, weight: Array, y: list[int]) -> Array:
    """The gradient of the mean loss of samples (n, p) in the weights (p, classes)."""
    found = np.zeros_like(weight)
    for line, error in zip(x, errors(x, weight, y), strict=True):
        found += np.outer(line, error)
    return found


def in_inputs(x: Array, weight: Array, y: list[int]) -> Array:
    """The gradient of the mean loss in the samples (n, p)."""
    return np.array([weight @ error for error in errors(x, weight, y)])
