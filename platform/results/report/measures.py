"""The two ways to look at a row: in the mean over the attacks, and at its worst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from backstop.platform.results.figures.names import Json
from backstop.platform.rounds.scores import unbeaten

MeasureKey = Literal["mean", "worst"]
MEAN_COLUMNS = {"attack_success_rate", "excess_success"}


class Measure(NamedTuple):
    """A way to look at rows."""

    key: MeasureKey
    label: str
    success: Callable[[Json], Json | None]  # a row's attack success, a figure


def _mean_success(row: Json) -> Json | None:
    success: Json | None = row["attack_success_rate"]
    return success


def _worst_success(row: Json) -> Json | None:
    """Under the attack that a search has found, else under the worst of those that all met."""
    success: Json | None = row["worst_case_success"] or row["worst_attack_success_rate"]
    return success


MEASURES = (
    Measure("mean", "mean over the attacks", _mean_success),
    Measure("worst", "worst case", _worst_success),
)


def measure_of(column: str) -> MeasureKey | None:
    """The measure that a column of the ranking belongs to; None where it belongs to both."""
    if column.startswith("worst"):
        return "worst"
    return "mean" if column in MEAN_COLUMNS else None


def accuracy_lost(row: Json) -> float | None:
    """What a row costs in accuracy against FedAvg without attack: with an attack on it or without,
    whichever is more; None where neither is known.
    """
    costs = (row["cost_under_attack"], row["cost_without_attack"])
    return max((cost["mean"] for cost in costs if cost is not None), default=None)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one beats in one coordinate without losing in the other, less being
    better, from left to right.

    >>> front([(0.5, 0.1), (0.1, 0.3), (0.2, 0.3), (0.6, 0.1)])
    [(0.1, 0.3), (0.5, 0.1)]
    """
    best = unbeaten([(-x, -y) for x, y in points])
    return sorted({points[index] for index in best})
