"""Snowball with points and means instead of distances, and an autoencoder whose gradients are
written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES = {
    "elected": [0.1, 0.3, 1.0],
    "far": [0.0, 0.2, 0.5],
    "joined": [0.0, 0.5, 0.8],
    "step": [0.05, 0.3],
    "after": [0, 1],
    "epochs": [1, 18],
    "hidden": [4, 9],
}


def squared(one: Array, other: Array) -> float:
    return math.fsum((one - other) ** 2)


def groups(points: Array, starts: Sequence[int]) -> list[list[int]]:
    """The clusters of k-means from these points on."""
    centers, found = [points[start] for start in starts], None
    while True:
        members: list[list[int]] = [[] for _ in centers]
        for i, point in enumerate(points):
            apart = [squared(point, center) for center in centers]
            members[apart.index(min(apart))].append(i)
        members = [those for those in members if those]
        if members == found:
            return members
        found = members
        centers = [points[those].mean(0) for those in members]


def separation(points: Array, clusters: Sequence[Sequence[int]]) -> float:
    """The Calinski-Harabasz score."""
    n, k = len(points), len(clusters)
    if not 1 < k < n:
        return 0.0
    middle = points.mean(0)
    total = math.fsum(squared(point, middle) for point in points)
    inside = math.fsum(
        squared(points[i], points[those].mean(0)) for those in clusters for i in those
    )
    if inside <= 1e-12 * total:
        return 1.0
    return (total - inside) / (k - 1) / (inside / (n - k))


def votes(points: Array, count: int) -> Array:
    """What each row gets in one layer, with so many far rows."""
    scores, voted = [], []
    for i in range(len(points)):
        others = [j for j in range(len(points)) if j != i]
        others.sort(key=lambda j: (-squared(points[i], points[j]), j))
        clusters = groups(points, [i, *others[:count]])
        scores.append(separation(points, clusters))
        voted.append(next(those for those in clusters if i in those))
    total = np.zeros(len(points))
    for score, those in zip(scores, voted, strict=True):
        same = max(scores) == min(scores)
        total[those] += 1.0 if same else (score - min(scores)) / (max(scores) - min(scores))
    return total


def ranked(rows: Array, layers: Sequence[slice], far: float) -> list[int]:
    """All rows, those with the most votes first."""
    n = len(rows)
    count = min(max(math.floor(Fraction(str(far)) * n), 1), max(n - 2, 0))
    total = np.zeros(n)
    for layer in layers:
        points = rows[:, layer]
        if count and np.ptp(points, axis=0).any():
            total += votes(points, count)
    return sorted(range(n), key=lambda i: (-round(float(total[i]), 9), i))


def sigmoid(x: Array) -> Array:
    return (1 + np.tanh(x / 2)) / 2


class Autoencoder:
    """E_1, E_2, M, V, D_1, D_2, D_3 as matrices and biases."""

    def __init__(self, inputs: int, hidden: int, latent: int, draws: torch.Generator) -> None:
        self.draws, self.latent = draws, latent
        self.parts: list[Array] = []
        for out, into in (
            (hidden, inputs),
            (hidden, hidden),
            (latent, hidden),
            (latent, hidden),
            (hidden, latent),
            (hidden, hidden),
            (inputs, hidden),
        ):
            matrix = self.normal(out * into).reshape(out, into) * math.sqrt(2 / into)
            drawn = torch.rand(out, generator=draws, dtype=torch.float64).numpy()
            self.parts += [matrix, (2 * drawn - 1) / math.sqrt(into)]

    def normal(self, *shape: int) -> Array:
        found: Array = torch.randn(shape, generator=self.draws, dtype=torch.float64).numpy()
        return found

    def through(self, x: Array, noise: Array) -> list[Array]:
        """What one input becomes, stage by stage."""
        p = self.parts
        one = np.maximum(p[0] @ x + p[1], 0)
        two = np.maximum(p[2] @ one + p[3], 0)
        mean, before = p[4] @ two + p[5], p[6] @ two + p[7]
        spread = np.logaddexp(0, before)
        z = mean + np.exp(spread / 2) * noise
        three = np.maximum(p[8] @ z + p[9], 0)
        four = np.maximum(p[10] @ three + p[11], 0)
        return [x, one, two, mean, before, spread, z, three, four, sigmoid(p[12] @ four + p[13])]

    def gradients(self, x: Array, noise: Array) -> list[Array]:
        """Of the loss on one input, for each part."""
        p = self.parts
        _, one, two, mean, before, spread, z, three, four, seen = self.through(x, noise)
        by_seen = 2 * (seen - x) * seen * (1 - seen)
        by_four = (p[12].T @ by_seen) * (four > 0)
        by_three = (p[10].T @ by_four) * (three > 0)
        by_z = p[8].T @ by_three
        by_mean = by_z + mean
        by_spread = by_z * noise * np.exp(spread / 2) / 2 + (np.exp(spread) - 1) / 2
        by_before = by_spread * sigmoid(before)
        by_two = (p[4].T @ by_mean + p[6].T @ by_before) * (two > 0)
        by_one = (p[2].T @ by_two) * (one > 0)
        ways = (
            (by_one, x),
            (by_two, one),
            (by_mean, two),
            (by_before, two),
            (by_three, z),
            (by_four, three),
            (by_seen, four),
        )
        return [part for by, into in ways for part in (np.outer(by, into), by)]

    def train(self, inputs: Sequence[Array], epochs: int) -> None:
        """Passes of a fresh Adam in batches of eight."""
        first = [np.zeros_like(part) for part in self.parts]
        second = [np.zeros_like(part) for part in self.parts]
        count = 0
        for _ in range(epochs):
            order = torch.randperm(len(inputs), generator=self.draws).tolist()
            noise = self.normal(len(inputs), self.latent)
            for start in range(0, len(order), 8):
                those = range(start, min(start + 8, len(order)))
                several = [self.gradients(inputs[order[i]], noise[i]) for i in those]
                count += 1
                for k, grads in enumerate(zip(*several, strict=True)):
                    grad = sum(grads)
                    first[k] = 0.9 * first[k] + 0.1 * grad
                    second[k] = 0.999 * second[k] + 0.001 * grad**2
                    root = np.sqrt(second[k] / (1 - 0.999**count)) + 1e-8
                    self.parts[k] = self.parts[k] - 0.001 * first[k] / (1 - 0.9**count) / root

    def error(self, x: Array, noise: Array) -> float:
        """How far the input is from what it becomes, in the mean over the draws."""
        return float(np.mean([np.sum((self.through(x, one)[-1] - x) ** 2) for one in noise]))


def joining(
    rows: Array,
    elected: list[int],
    wanted: int,
    step: int,
    epochs: int,
    hidden: int,
    draws: torch.Generator,
) -> list[int]:
    """The elected rows and those that join them."""
    network = Autoencoder(rows.shape[1], hidden, max(hidden // 4, 1), draws)

    def differences() -> list[Array]:
        return [sigmoid(rows[i] - rows[j]) for i in elected for j in elected if i != j]

    network.train(differences(), epochs)
    while len(elected) < wanted:
        network.train(differences(), max(epochs // 9, 1))
        noise = network.normal(10, network.latent)
        odd = {}
        for row in [i for i in range(len(rows)) if i not in elected]:
            apart = [rows[i] - rows[row] for i in elected if (rows[i] != rows[row]).any()]
            both = [network.error(sigmoid(one), noise) for way in apart for one in (way, -way)]
            odd[row] = float(np.mean(both)) if both else 0.0
        usual = float(np.mean(list(odd.values()))) or 1.0
        order = sorted(odd, key=lambda row: (round(odd[row] / usual, 9), row))
        elected = elected + order[: min(step, wanted - len(elected))]
    return elected


def chosen(
    rows: Array,
    layers: Sequence[slice],
    elected: float,
    far: float,
    joined: float,
    step: float,
    epochs: int,
    hidden: int,
    draws: torch.Generator,
) -> list[int]:
    """The rows that are in after both elections, in a first round."""
    n = len(rows)
    order = ranked(rows, layers, far)
    first = order[: math.ceil(Fraction(str(elected)) * n)]
    wanted = math.floor(Fraction(str(joined)) * n)
    if wanted <= len(first):
        return sorted(first)
    seen = np.concatenate([rows[:, layer] for layer in layers], axis=1)
    at_a_time = math.ceil(Fraction(str(step)) * n)
    pair = order[: max(len(first), 2)]
    return sorted(joining(seen, pair, wanted, at_a_time, epochs, hidden, draws))


def snowball(
    rows: Array,
    weight: Array,
    elected: float,
    far: float,
    joined: float,
    step: float,
    after: int,
    epochs: int,
    hidden: int,
    generator: torch.Generator,
) -> Array:
    """The weighted mean of those that the laws' only layer elects, in the first round."""
    share = 0.0 if after else joined
    kept = chosen(rows, [slice(None)], elected, far, share, step, epochs, hidden, generator)
    return reference.weighted_mean(rows[kept], weight[kept])
