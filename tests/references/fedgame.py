"""FedGame's scores and weights, client by client, with the trigger given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LAW = False  # needs the models


def fedgame(
    models: Sequence[Callable[[Array], Array]],
    images: Array,
    trigger: tuple[Array, Array],
    target: int,
    weight: Array,
) -> list[float]:
    """The weights, from functions of an image (C, H, W) to logits, and a mask and pattern."""
    mask, pattern = trigger
    scores = []
    for model in models:
        kept = 0
        for image in images:
            stamped = (1 - mask) * image + mask * pattern
            logits = model(stamped)
            kept += int(int(np.argmax(logits)) != target)
        scores.append(kept / len(images))
    if not any(scores):
        return [float(one) for one in weight]
    return [score * float(weight.mean()) for score in scores]
