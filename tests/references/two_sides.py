"""Three tests of whether two sides of a set of values differ, by SciPy."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]

LAW = False


def p_values(above: Array, below: Array) -> list[float]:
    """Of a t, Levene and Kolmogorov-Smirnov test; none where a side has less than two values."""
    if min(len(above), len(below)) < 2:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            stats.ttest_ind(above, below).pvalue,
            stats.levene(above, below).pvalue,
            stats.ks_2samp(above, below, method="exact").pvalue,
        ]
