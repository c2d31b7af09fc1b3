"""The mean over seeds, and how sure it is.

Of fewer than six seeds nothing but their range is given, and it is called that. From six on it is a
95 % interval: Student's, corrected for skewness by Hall's cubic transformation. With n values of
mean m, standard deviation s (n - 1 in its denominator) and skewness γ = m₃ / m₂^1.5, and
a = :data:`CORRECTION` · γ, the interval holds the means μ with

    |f((m - μ) / s)| <= t / √n        f(u) = u + a u² / 3 + a² u³ / 27 + a / (6 n)

where t is Student's 97.5 % quantile with n - 2 degrees of freedom: one for the mean, one for the
skewness. f rises throughout, so the interval's ends have a closed form: nothing is resampled, no
generator is used, and all of it is sums that are exact, square roots and divisions, so that the
same values give the same bits on every machine.

Source: P. Hall, "On the Removal of Skewness by Transformation", Journal of the Royal Statistical
Society B 54 (1), 1992, section 2.2.
Deviations: only a share of the correction, and n - 2 degrees of freedom. Both were chosen by
simulation at 6, 10 and 20 seeds, among Student's, Johnson's, BCa and studentized bootstraps and
all shares of Hall's: the whole correction holds 95 % better on tails as long as a lognormal's and
worse on U-shaped values, where it is 98 %.

Coverage is from 93 to 97 % on skewed and on U-shaped values in [0, 1] and on paired differences of
such (``tests/test_intervals.py`` measures it, docs/statistics.md has the table). It is less, 90 %,
where most seeds are near 0 and the tail is long. No method holds 95 % where most seeds agree and a
rare one is far off: at one in five, six seeds show no such seed in 26 % of all cases, and then no
figure of theirs can know of it; there it is 74 %. Values that are all equal give an interval
without width: it says that the n seeds agree, and no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from backstop.platform.results.figures import student

LEAST_SEEDS = 6  # fewer give a range
CONFIDENCE = 0.95
CORRECTION = 0.4  # the share of Hall's correction that holds 95 % best; measured
SHARES = (0.0, 1.0)  # bounds of rates and accuracies
ROOT_STEPS = 8  # of Newton's from 1: enough for what is between 0.1 and 2

FigureKind = Literal["range", "95%"]
Bounds = tuple[float, float]


class Sample(NamedTuple):
    """What is taken from the values of at least six seeds that are not all equal."""

    seeds: int
    mean: float
    deviation: float  # standard deviation, n - 1 in its denominator
    bend: float  # a of the module's formula

    def transformed(self, distance: float) -> float:
        """The f of the module's formula: of a distance from the mean in standard deviations."""
        bent = self.bend * distance
        cubic = 1 + bent / 3 + bent * bent / 27
        return distance * cubic + self.bend / (6 * self.seeds)

    def distance(self, transformed: float) -> float:
        """The inverse of :meth:`transformed`.

        With y = transformed - a / (6 n) it is 3 (∛(1 + a y) - 1) / a, written so that nothing
        cancels where a is small. The root's argument is above 0.1 for every sample: |a| is at most
        0.4 (n - 2) / √(n - 1).
        """
        straight = transformed - self.bend / (6 * self.seeds)
        root = _cube_root(1 + self.bend * straight)
        return 3 * straight / (root * root + root + 1)


def mean_of_seeds(values: Sequence[float]) -> float:
    """The mean; of values that are all equal exactly theirs."""
    if min(values) == max(values):
        return values[0]
    return math.fsum(values) / len(values)


def figure(values: Sequence[float], bounds: Bounds | None = None) -> dict[str, Any] | None:
    """``{"mean", "low", "high", "n", "kind"}`` of finite values, one for each seed; None without
    any.

    Under six seeds low and high are the least and the greatest value and ``kind`` is ``"range"``;
    from six on they are a 95 % interval of the mean, cut off at ``bounds``, and it is ``"95%"``.

    >>> figure([0.5, 0.25])
    {'mean': 0.375, 'low': 0.25, 'high': 0.5, 'n': 2, 'kind': 'range'}
    """
    if not values:
        return None
    low, high = spread_of_seeds(values)
    if bounds is not None:
        low = max(low, bounds[0])
        high = min(high, bounds[1])
    return {
        "mean": mean_of_seeds(values),
        "low": low,
        "high": high,
        "n": len(values),
        "kind": kind_of(len(values)),
    }


def kind_of(seeds: int) -> FigureKind:
    """What a figure of so many seeds has beside its mean."""
    return "range" if seeds < LEAST_SEEDS else "95%"


def spread_of_seeds(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest of under six values; of more the 95 % interval of their mean."""
    low, high = min(values), max(values)
    if len(values) < LEAST_SEEDS or low == high:
        return low, high
    sample = sample_of(values)
    limit = student.central_limit(CONFIDENCE, sample.seeds - 2) / math.sqrt(sample.seeds)
    return (
        sample.mean - sample.deviation * sample.distance(limit),
        sample.mean - sample.deviation * sample.distance(-limit),
    )


def p_value(values: Sequence[float]) -> float:
    """How likely a mean so far from 0 is where the true one is 0, two-sided, of at least six
    values.

    It is below 0.05 exactly where the 95 % interval does not hold 0. Values that are all equal have
    1 where they are 0, else 0.
    """
    if min(values) == max(values):
        return float(values[0] == 0)
    sample = sample_of(values)
    transformed = sample.transformed(sample.mean / sample.deviation)
    limit = abs(transformed) * math.sqrt(sample.seeds)
    chance = 1 - student.central_probability(limit, sample.seeds - 2)
    return round(max(0.0, chance), student.KEPT_DIGITS)


def sample_of(values: Sequence[float]) -> Sample:
    """Mean, deviation and skewness of values that are not all equal."""
    count = len(values)
    mean = mean_of_seeds(values)
    distances = [value - mean for value in values]
    squares = math.fsum(distance * distance for distance in distances)
    cubes = math.fsum(distance * distance * distance for distance in distances)
    variance = squares / count
    skewness = cubes / count / (variance * math.sqrt(variance))
    return Sample(
        seeds=count,
        mean=mean,
        deviation=math.sqrt(squares / (count - 1)),
        bend=CORRECTION * skewness,
    )


def _cube_root(value: float) -> float:
    """By Newton's method, whose bits depend on no library of mathematics."""
    root = 1.0
    for _ in range(ROOT_STEPS):
        root = (2 * root + value / (root * root)) / 3
    return root
