"""Spectral signatures of models: one singular value decomposition for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LAW = False  # needs the models' representations


def spectral_signatures(seen: Sequence[Array], label: Sequence[int], share: float) -> list[int]:
    """The numbers of the rows that are left, from the representations (b, h) of each model and the
    labels of the inputs.
    """
    n = len(seen)
    largest = [0.0] * n
    for one in sorted(set(label)):
        of_class = [place for place, found in enumerate(label) if found == one]
        points = np.array(
            [
                [
                    sum(model[place, k] for place in of_class) / len(of_class)
                    for k in range(model.shape[1])
                ]
                for model in seen
            ]
        )
        centered = points - points.mean(axis=0)
        direction = np.linalg.svd(centered)[2][0]
        scores = [float(sum(row * direction)) ** 2 for row in centered]
        largest = [max(old, new / sum(scores)) for old, new in zip(largest, scores, strict=True)]
    worst = math.floor(Fraction(3, 2) * Fraction(str(share)) * n)
    return sorted(sorted(range(n), key=lambda i: largest[i])[: max(n - worst, 1)])
