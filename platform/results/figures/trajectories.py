"""What a cell's runs did on the way: attack success and accuracy by round in a few figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backstop.platform.results.figures.cells import Cell, Curve
from backstop.platform.results.figures.means import SeedValues, estimate, share_of
from backstop.platform.results.figures.twins import Twins
from backstop.platform.rounds.scores import excess_success

HIGH = 0.95  # the percentile that says how bad attacked rounds get
BY_ROUND = (
    "peak_success",
    "last_success",
    "success_area",
    "success_after_stop",
    "excess_after_stop",
    "attacked_excess",
    "attacked_excess_p95",
    "peak_accuracy",
    "last_accuracy",
    "accuracy_area",
)


def by_round_fields(cell: Cell, twins: Twins) -> dict[str, Any]:
    """Of attack success and accuracy the highest, the last and the mean over all evaluated rounds
    (the area under the curve); success and E in the mean over those after the attack's last; E over
    the attacked rounds, mean and 95th percentile. None where rounds were not read.
    """
    success, accuracy = cell.success, cell.accuracy
    schedule, excess = cell.schedule, _excess_by_round(cell, twins)
    attacked = _of_each(excess, schedule.during)
    columns = (
        _over_seeds(success, max),
        _over_seeds(success, _last),
        _over_seeds(success, _mean),
        _over_seeds(_of_each(success, schedule.after), _mean),
        _over_seeds(_of_each(excess, schedule.after), _mean),
        _over_seeds(attacked, _mean),
        _over_seeds(attacked, _high),
        _over_seeds(accuracy, max),
        _over_seeds(accuracy, _last),
        _over_seeds(accuracy, _mean),
    )
    figures = [share_of(estimate(column)) for column in columns]
    return dict(zip(BY_ROUND, figures, strict=True))


def _over_seeds(
    curves: Mapping[int, Curve],
    summary: Callable[[Sequence[float]], float],
) -> SeedValues:
    """Seed → a summary of its curve's values, where it has any."""
    return {seed: summary([value for _, value in curve]) for seed, curve in curves.items() if curve}


def _of_each(
    curves: Mapping[int, Curve],
    part: Callable[[Curve], Curve],
) -> dict[int, Curve]:
    """Seed → a part of its curve."""
    return {seed: part(curve) for seed, curve in curves.items()}


def _excess_by_round(cell: Cell, twins: Twins) -> dict[int, Curve]:
    """E by round, above the twin of the same round; above the twin's end in rounds that it does not
    have.
    """
    curves: dict[int, Curve] = {}
    for seed, at_the_end in twins.final.items():
        natural = twins.by_round.get(seed, {})
        curves[seed] = [
            (at, excess_success(rate, natural.get(at, at_the_end)))
            for at, rate in cell.success.get(seed, ())
        ]
    return curves


def _last(values: Sequence[float]) -> float:
    return values[-1]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _high(values: Sequence[float]) -> float:
    """The 95th percentile, between the two nearest values in proportion."""
    ascending = sorted(values)
    rank = HIGH * (len(ascending) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (rank - low) * (ascending[high] - ascending[low])
