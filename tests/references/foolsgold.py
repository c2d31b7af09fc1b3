"""FoolsGold in plain loops, over all rounds so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LAW = False


def cosine(one: Array, other: Array) -> float:
    """To six decimals; 0 where a vector is zero."""
    lengths = math.sqrt(sum(one**2)) * math.sqrt(sum(other**2))
    return round(float(one @ other) / lengths, 6) if lengths else 0.0


def foolsgold(rounds: Sequence[Mapping[int, Array]], confidence: float) -> dict[int, float]:
    """The trust in the clients of the last of some rounds, each round a mapping from clients to
    their updates.
    """
    clients = list(rounds[-1])
    past = {i: np.sum([given[i] for given in rounds if i in given], axis=0) for i in clients}
    alike = {(i, j): max(cosine(past[i], past[j]), 0.0) for i in clients for j in clients if i != j}
    most = {i: max((alike[i, j] for j in clients if j != i), default=0.0) for i in clients}
    for i, j in alike:
        if most[j] > most[i]:
            alike[i, j] *= most[i] / most[j]
    alone = {i: 1 - max((alike[i, j] for j in clients if j != i), default=0.0) for i in clients}
    if max(alone.values()) == 0:
        return dict.fromkeys(clients, 1.0)
    trust = {}
    for i in clients:
        share = alone[i] / max(alone.values())
        odds = (
            math.inf if share == 1 else -math.inf if share == 0 else math.log(share / (1 - share))
        )
        trust[i] = min(max(confidence * (odds + 0.5), 0.0), 1.0)
    return trust
