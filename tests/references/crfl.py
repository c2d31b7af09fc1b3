"""CRFL, step by step: needs the global model, so it is compared in its own tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests import reference

Array = npt.NDArray[np.float64]

LAW = False


def crfl(
    rows: Array,
    weight: Array,
    params: Array,
    server_lr: float,
    draws: Array,
    norm: float,
    noise: float,
) -> Array:
    """The next global model."""
    model: Array = params + server_lr * reference.weighted_mean(rows, weight)
    length = float(np.sqrt(sum(model**2)))
    return model / max(1.0, length / norm) + noise * draws
