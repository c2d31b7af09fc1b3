"""FLANDERS with the paper's orientation (rows are coordinates, columns clients) and sums over
rounds written out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LAW = False


def forecast(matrices: Sequence[Array], ridge: float, sweeps: int) -> Array:
    """A Θ B for the last Θ, with A and B fitted to each Θ and the one after it."""
    k, m = matrices[-1].shape
    scale = np.sqrt(np.mean(np.square(matrices[:-1])))
    pairs = [(old / scale, new / scale) for old, new in pairwise(matrices)]
    a, b = np.eye(k), np.eye(m)
    for _ in range(sweeps):
        fit = sum(new @ (old @ b).T for old, new in pairs)
        a = fit @ np.linalg.inv(
            sum((old @ b) @ (old @ b).T for old, _ in pairs) + ridge * np.eye(k)
        )
        fit = sum((a @ old).T @ new for old, new in pairs)
        b = (
            np.linalg.inv(sum((a @ old).T @ (a @ old) for old, _ in pairs) + ridge * np.eye(m))
            @ fit
        )
    found: Array = a @ matrices[-1] @ b
    return found


def flanders(
    rounds: Sequence[tuple[Array, Mapping[int, Array]]],
    f: int | None,
    window: int,
    ridge: float,
    sweeps: int,
    early: bool,
) -> list[tuple[dict[int, float], set[int]]]:
    """Scores and clients kept in each round, a round being the global model and the updates by
    client, at the sampled coordinates.
    """
    known: list[dict[int, Array]] = []
    found = []
    for t, (model, given) in enumerate(rounds):
        clients = list(given)
        past = range(max(t - window, 0), t)
        matrices = [
            np.stack([known[r].get(i, rounds[r + 1][0]) for i in clients], axis=1) for r in past
        ]
        if not matrices:
            expected = np.stack([model for _ in clients], axis=1)
        else:
            expected = forecast(matrices, ridge, sweeps) if len(matrices) > 1 else matrices[0]
        scores = {
            i: float(np.sum((model + given[i] - expected[:, column]) ** 2))
            for column, i in enumerate(clients)
        }
        attackers = (len(clients) - 1) // 2 if f is None else f
        if t == 0 and not early:
            attackers = 0
        kept = sorted(clients, key=lambda i: scores[i])[: max(len(clients) - attackers, 1)]
        known.append({i: model + given[i] for i in kept})
        found.append((scores, set(kept)))
    return found
