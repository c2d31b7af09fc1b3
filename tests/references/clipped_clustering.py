"""Clipped clustering from the norms seen before this round and the clusters of
:mod:`tests.references.simple_clustering`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tests import reference
from tests.references.simple_clustering import larger, mean

Array = npt.NDArray[np.float64]

CHOICES: dict[str, list[object]] = {}


def clipped_clustering(rows: Array, weight: Array, past: Sequence[float] = ()) -> Array:
    """The weighted mean of the larger cluster's rows, none longer than the median norm."""
    lengths = [float(np.sqrt(sum(row**2))) for row in rows]
    limit = np.median([*past, *lengths])
    clipped = np.array(
        [
            row * min(1.0, limit / length) if length else row
            for row, length in zip(rows, lengths, strict=True)
        ]
    )
    kept = larger(rows, mean)
    return reference.weighted_mean(clipped[kept], weight[kept])
