"""MARS, client by client and channel by channel, with NumPy's singular values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tests.references.bnguard import smaller_cluster

Array = npt.NDArray[np.float64]

LAW = False  # needs the clients' statistics


def mars(
    models: Sequence[Mapping[str, Array]],
    layers: Sequence[tuple[str, str | None]],
    share: float,
    epsilon: float,
) -> list[int]:
    """The numbers of the clients that are kept, from their state dicts. ``layers`` are pairs of a
    layer with weights and the BatchNorm layer behind it.
    """
    energies = np.array([concentrated(model, layers, share) for model in models])
    second = sorted(smaller_cluster(energies))
    first = [client for client in range(len(models)) if client not in second]
    if not second or not first:
        return first or second
    center, other = energies[first].mean(0), energies[second].mean(0)
    if np.abs(center - other).mean() <= epsilon:
        return sorted(first + second)
    return first if center.sum() <= other.sum() else second


def concentrated(
    model: Mapping[str, Array],
    layers: Sequence[tuple[str, str | None]],
    share: float,
) -> list[float]:
    """The largest energies of one model, ascending."""
    found: list[float] = []
    for layer, norm in layers:
        values = []
        for channel, weights in enumerate(model[f"{layer}.weight"]):
            matrix = weights.reshape(len(weights), -1)
            energy = float(np.linalg.svd(matrix, compute_uv=False)[0])
            if norm is not None:
                variance = max(float(model[f"{norm}.running_var"][channel]), 0.0)
                energy *= abs(float(model[f"{norm}.weight"][channel])) / np.sqrt(variance + 1e-5)
            values.append(energy)
        threshold = np.quantile(values, 1 - share)
        found += [value for value in values if value >= threshold - 1e-12]
    return sorted(found)
