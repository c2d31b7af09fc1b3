"""STRIP with plain arrays: it labels inputs, so it is compared in its own tests."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LAW = False


def strip(
    inputs: Array,
    clean: Array,
    others: Array,
    model: Callable[[Array], Array],
    refused: float,
) -> list[int]:
    """The labels of inputs (N, …), -1 where rejected, from the logits (N, classes) of a model, the
    root set (r, …) and those of it that are blended in (n, …).
    """

    def entropy(one: Array) -> float:
        """Mean bits of the answers to the blends of one input."""
        bits = []
        for other in others:
            logits = model(np.minimum(one + other, 1.0)[None])[0]
            share = np.exp(logits - logits.max())
            share /= share.sum()
            bits.append(-sum(p * np.log2(p) for p in share if p > 0))
        return float(np.mean(bits))

    usual = np.array([entropy(one) for one in clean])
    boundary = NormalDist(usual.mean(), usual.std()).inv_cdf(refused)
    return [int(model(one[None])[0].argmax()) if entropy(one) >= boundary else -1 for one in inputs]
