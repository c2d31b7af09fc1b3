"""The mean of the rows nearest to a trusted vector, compared in its own test: the law has no root
set to train on.
"""

from __future__ import annotations

import numpy as np

from tests.reference import Array, weighted_mean

LAW = False


def monna(rows: Array, weight: Array, f: int, trusted: Array) -> Array:
    """The weighted mean of the n - f rows nearest to the trusted vector."""
    apart = [float(np.linalg.norm(row - trusted)) for row in rows]
    nearest = sorted(range(len(rows)), key=lambda i: (apart[i], i))[: max(len(rows) - f, 1)]
    return weighted_mean(rows[nearest], weight[nearest])
