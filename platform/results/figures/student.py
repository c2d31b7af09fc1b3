"""Student's t distribution at whole degrees of freedom, by its finite series."""

from __future__ import annotations

import math
from functools import cache

KEPT_DIGITS = 10  # of a quantile: the last bits of an arc tangent differ between machines
HALVINGS = 60  # of the interval that holds a quantile: it is then below a double's last bit


def central_probability(limit: float, freedom: int) -> float:
    """How likely ``|T| <= limit`` is, ``limit`` at least 0, with so many degrees of freedom.

    Source: M. Abramowitz and I. A. Stegun, "Handbook of Mathematical Functions", 1964, equations
    26.7.3 and 26.7.4.

    >>> round(central_probability(2.776445, 4), 6)
    0.95
    """
    hypotenuse = math.sqrt(freedom + limit * limit)
    sine = limit / hypotenuse
    cosine_squared = freedom / (freedom + limit * limit)
    if freedom % 2 == 0:
        return sine * _series(cosine_squared, freedom, first=1)
    angle = math.atan2(limit, math.sqrt(freedom))
    if freedom == 1:
        return 2 / math.pi * angle
    cosine = math.sqrt(cosine_squared)
    return 2 / math.pi * (angle + sine * cosine * _series(cosine_squared, freedom, first=2))


def _series(
    square: float,
    freedom: int,
    *,
    first: int,
) -> float:
    """``1 + first/(first + 1) square + …`` up to the power that the degrees of freedom allow."""
    term = total = 1.0
    for step in range(first, freedom - 2, 2):
        term *= square * step / (step + 1)
        total += term
    return total


@cache
def central_limit(probability: float, freedom: int) -> float:
    """The limit that ``|T|`` stays within with this probability, to ten digits behind the point.

    >>> central_limit(0.95, 4)
    2.7764451052
    """
    low, high = 0.0, 1.0
    while central_probability(high, freedom) < probability:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if central_probability(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return round(high, KEPT_DIGITS)
