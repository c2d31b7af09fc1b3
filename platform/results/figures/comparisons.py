"""Rows of a leaderboard against each other, seed by seed.

All defenses of one seed face the same split, model, cohorts and batches, so two of them are
compared by their differences within each seed: what a seed makes easy or hard for both of them is
not in these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from backstop.platform.results.figures import student
from backstop.platform.results.figures.intervals import (
    LEAST_SEEDS,
    figure,
    mean_of_seeds,
    p_value,
    sample_of,
)

LEVEL = 0.05  # of all pairs of a board together, to be called different where none is
POWER = 0.8  # how often a planned number of seeds tells two rows apart
MOST_SEEDS = 10_000  # more than anybody runs: past it no number is named
RESOLUTION = 12  # digits of a difference: what is less is the rounding of its two sides

BySeed = Sequence[float]  # a row's values, in the order of the seeds that all rows have


class Comparison(NamedTuple):
    """The first of two rows less the second."""

    difference: dict[str, Any]  # a figure: mean, low, high, n, kind
    p_value: float | None  # two-sided; None under six seeds


class Standing(NamedTuple):
    """A row's place among the others: 1 is the best."""

    rank: int
    low: int  # the best place that the seeds allow
    high: int  # the worst


def paired_differences(first: BySeed, second: BySeed) -> list[float]:
    """Seed by seed, the first less the second; lists of one length, in one order of seeds."""
    return [round(one - other, RESOLUTION) for one, other in zip(first, second, strict=True)]


def compare_rows(first: BySeed, second: BySeed) -> Comparison | None:
    """The difference of two rows over the same seeds; None without any.

    Under six seeds it has the range of the seeds' differences and no p value.

    >>> compare_rows([0.75, 0.5], [0.5, 0.5]).difference["mean"]
    0.125
    """
    differences = paired_differences(first, second)
    measured = figure(differences)
    if measured is None:
        return None
    tested = len(differences) >= LEAST_SEEDS
    return Comparison(measured, p_value(differences) if tested else None)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values as if each stood alone: those of m comparisons that are at most 0.05 are wrong
    about any true null hypothesis with 5 % probability in all.

    Source: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
    of Statistics 6, 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - position) * p_values[index]))
        corrected[index] = largest
    return corrected


def standings(rows: Sequence[BySeed]) -> list[Standing]:
    """Each row's rank and the ranks that the seeds allow it, for rows in the same seeds' order, in
    which more is better.

    From six seeds on all pairs are tested, with Holm's correction. A row's rank is 1 + how many are
    significantly better, and its worst is the number of rows that it is not significantly better
    than: rows that nothing tells apart share a rank. Under six seeds the rank is the place of the
    mean, and the others are the best and the worst place in a single seed.
    """
    if not rows or not rows[0]:
        return []
    if len(rows[0]) < LEAST_SEEDS:
        return _by_single_seeds(rows)
    beats = _significantly_better(rows)
    return [
        _standing(
            better=sum((other, row) in beats for other in range(len(rows))),
            worse=sum((row, other) in beats for other in range(len(rows))),
            rows=len(rows),
        )
        for row in range(len(rows))
    ]


def _standing(
    *,
    better: int,
    worse: int,
    rows: int,
) -> Standing:
    """Of a row with so many better and so many worse ones among all."""
    return Standing(1 + better, 1 + better, rows - worse)


def _significantly_better(rows: Sequence[BySeed]) -> set[tuple[int, int]]:
    """(row, a row that it is significantly better than)."""
    pairs = list(combinations(range(len(rows)), 2))
    differences = [paired_differences(rows[one], rows[other]) for one, other in pairs]
    corrected = holm([p_value(listed) for listed in differences])
    better = set()
    for (one, other), listed, chance in zip(pairs, differences, corrected, strict=True):
        if chance <= LEVEL:
            better.add((one, other) if math.fsum(listed) > 0 else (other, one))
    return better


def _by_single_seeds(rows: Sequence[BySeed]) -> list[Standing]:
    """The place of each row's mean, and its best and worst place in a single seed."""
    means = places(map(mean_of_seeds, rows))
    seeds = [places(values) for values in zip(*rows, strict=True)]
    return [_widest(own) for own in zip(means, *seeds, strict=True)]


def _widest(own: Sequence[Standing]) -> Standing:
    """The first, which is that of the mean, with the ends of all."""
    return Standing(
        own[0].rank,
        min(standing.low for standing in own),
        max(standing.high for standing in own),
    )


def places(values: Iterable[float]) -> list[Standing]:
    """The place of each value, the greatest first; equal ones share a rank.

    >>> [standing.rank for standing in places([0.5, 0.75, 0.5])]
    [2, 1, 2]
    """
    rounded = [round(value, RESOLUTION) for value in values]
    return [
        _standing(
            better=sum(other > value for other in rounded),
            worse=sum(other < value for other in rounded),
            rows=len(rounded),
        )
        for value in rounded
    ]


def seeds_needed(differences: Sequence[float], pairs: int = 1) -> int | None:
    """How many seeds more than these tell two rows apart with 80 % probability, if the differences
    seen so far (:func:`paired_differences`) are what the others will be like.

    ``pairs`` is how many pairs are compared together: the test's level is divided by it.

    The least n of at least six with |mean| √n / deviation >= t(1 - level / 2) + t(80 %), both of
    n - 2 degrees of freedom: the normal approximation of the test's power with Student's quantiles
    in place of the normal ones. 0 where the differences already tell the two apart; None where they
    say nothing (fewer than two of them, or a mean of 0) or more than 10,000 seeds were needed.
    """
    count = len(differences)
    if count < 2 or mean_of_seeds(differences) == 0:
        return None
    level = LEVEL / pairs
    if count >= LEAST_SEEDS and p_value(differences) <= level:
        return 0
    needed = _planned(_effect(differences), max(LEAST_SEEDS, count), level)
    return None if needed is None else max(1, needed - count)


def _effect(differences: Sequence[float]) -> float:
    """The mean in standard deviations; infinite where all are equal."""
    if min(differences) == max(differences):
        return math.inf
    sample = sample_of(differences)
    return abs(sample.mean) / sample.deviation


def _planned(
    effect: float,
    fewest: int,
    level: float,
) -> int | None:
    """The least number of seeds, at least ``fewest``, that shows such an effect."""
    if not _shows(effect, MOST_SEEDS, level):
        return None
    low, high = fewest - 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        if _shows(effect, middle, level):
            high = middle
        else:
            low = middle
    return high


def _shows(
    effect: float,
    seeds: int,
    level: float,
) -> bool:
    """Whether so many seeds show the effect with probability :data:`POWER`."""
    threshold = student.central_limit(1 - level, seeds - 2)
    reserve = student.central_limit(2 * POWER - 1, seeds - 2)
    return effect * math.sqrt(seeds) >= threshold + reserve
