"""AGSD on linear classifiers, model by model, with scikit-learn's spectral clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.cluster import SpectralClustering

from tests.references.softmax import chances

Array = npt.NDArray[np.float64]

LAW = False  # needs the models


def step(weights: Array, start: Array, y: Sequence[int]) -> Array:
    """The gradient in the inputs (b, features) of the two scaled losses' mean, for logits
    ``start @ weights``.
    """
    logits = start @ weights
    count, classes = logits.shape
    known = np.array([np.log(chances(row)[label]) for row, label in zip(logits, y, strict=True)])
    apart = np.abs(logits - logits.mean(0)).mean(1)
    gradient = np.zeros_like(logits)
    # each as: a line of weights of the samples' losses, times each loss's gradient in the logits
    for sample, share in enumerate(shares(known)):
        hot = np.eye(classes)[y[sample]]
        gradient[sample] += share * (hot - chances(logits[sample]))
    for sample, share in enumerate(shares(apart)):
        signs = np.sign(logits[sample] - logits.mean(0)) / classes
        gradient[sample] += share * signs
        gradient -= share * signs / count
    return np.array(gradient @ weights.T)


def shares(losses: Array) -> Array:
    """The derivative of the mean of the scaled losses in each of them."""
    low, high, mean = losses.min(), losses.max(), losses.mean()
    if low == high:
        return np.zeros_like(losses)
    result = np.full(len(losses), 1 / len(losses)) / (high - low)
    result[losses.argmin()] += (mean - low) / (high - low) ** 2 - 1 / (high - low)
    result[losses.argmax()] -= (mean - low) / (high - low) ** 2
    return np.array(result)


def trust_index(answers: Sequence[Array]) -> list[float]:
    """γ from the logits (b, classes) of each model; all 0 where they are alike."""
    spread, confidence = [], []
    for logits in answers:
        chosen = np.eye(logits.shape[1])[logits.argmax(1)]
        spread.append(float(np.mean([np.std(column) for column in chosen.T])))
        confidence.append(max(np.mean([chances(row) for row in logits], axis=0)))
    one, two = chances(np.array(spread)), chances(-np.array(confidence))
    weight = np.exp((min(one) - max(one)) / (np.mean(one) - min(one) + 1e-4))
    both = one + weight * two
    if max(both) == min(both):
        return [0.0] * len(both)
    return [float((value - min(both)) / (max(both) - min(both))) for value in both]


def cosine(one: Array, other: Array) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def clusters(rows: Array) -> list[int]:
    """0 or 1 for each of the rows."""
    middle = float(np.sort(np.linalg.norm(rows, axis=1))[(len(rows) - 1) // 2])
    level = np.array([row * middle / np.linalg.norm(row) for row in rows])
    center = level.mean(0) * middle / np.linalg.norm(level.mean(0))
    alike = np.array(
        [
            [cosine(one - center, other - center) + cosine(one, other) for other in level]
            for one in level
        ]
    )
    alike = (alike - alike.min()) / (alike.max() - alike.min())
    model = SpectralClustering(n_clusters=2, affinity="precomputed", random_state=0)
    labels: list[int] = model.fit(alike).labels_.tolist()
    return labels


def agsd(
    rows: Array,
    answers: Sequence[Array],
    past: Mapping[int, float],
) -> tuple[Array | None, dict[int, float]]:
    """The mean of the rows that are kept, of clients 0 … n - 1, and the trust in all; no mean where
    nobody is kept.
    """
    gamma, label = trust_index(answers), np.array(clusters(rows))
    best = max(
        (0, 1),
        key=lambda one: np.mean([g for g, at in zip(gamma, label, strict=True) if at == one]),
    )
    trust = dict(past)
    for client, of in enumerate(label):
        change = gamma[client] if of == best else gamma[client] - 1
        trust[client] = trust.get(client, 0.0) + change
    kept = [client for client, of in enumerate(label) if of == best and trust[client] >= 0]
    if not kept:
        return None, trust
    lengths = np.linalg.norm(rows[kept], axis=1)
    middle = np.sort(lengths)[(len(kept) - 1) // 2]
    return np.mean(
        [rows[client] * middle / np.linalg.norm(rows[client]) for client in kept], axis=0
    ), trust
