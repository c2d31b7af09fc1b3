"""Means over seeds, which know of what: every figure of the leaderboard is made of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from backstop.platform.results.figures.intervals import (
    SHARES,
    Bounds,
    figure,
    kind_of,
    mean_of_seeds,
)

SeedValues = Mapping[int, float]


class Estimate(NamedTuple):
    """A mean with what it is the mean of."""

    mean: float
    by_seed: SeedValues  # of the seeds that all of its parts have; empty where they share none

    @property
    def values(self) -> list[float]:
        """In the order of the seeds."""
        return [self.by_seed[seed] for seed in sorted(self.by_seed)]

    def figure(self, bounds: Bounds | None = None) -> dict[str, Any]:
        """As the document holds it: ``{"mean", "low", "high", "n", "kind"}``."""
        return figure(self.values, bounds) or {
            "mean": self.mean,
            "low": self.mean,
            "high": self.mean,
            "n": 0,
            "kind": kind_of(0),
        }


def estimate(by_seed: SeedValues) -> Estimate | None:
    """The mean over seeds, or None without any."""
    if not by_seed:
        return None
    return Estimate(mean_of_seeds(list(by_seed.values())), by_seed)


def average(parts: Iterable[Estimate | None]) -> Estimate | None:
    """The mean of the parts that exist, seed by seed; over the parts alone where no seed is common
    to them.
    """
    known = [part for part in parts if part is not None]
    if len(known) <= 1:
        return known[0] if known else None
    common = common_seeds(part.by_seed for part in known)
    by_seed = {seed: mean_of_seeds([part.by_seed[seed] for part in known]) for seed in common}
    return estimate(by_seed) or Estimate(mean_of_seeds([part.mean for part in known]), {})


def common_seeds(columns: Iterable[SeedValues]) -> list[int]:
    """The seeds that all of them have, in order."""
    sets = [set(column) for column in columns]
    return sorted(set.intersection(*sets)) if sets else []


def figure_of(part: Estimate | None) -> dict[str, Any] | None:
    """An estimate as the document holds it, None where there is none."""
    return None if part is None else part.figure()


def share_of(part: Estimate | None) -> dict[str, Any] | None:
    """An estimate of a share, whose interval ends at 0 and 1; None where there is none."""
    return None if part is None else part.figure(SHARES)


def mean_of(part: Estimate | None) -> float | None:
    """The mean, None where there is none."""
    return None if part is None else part.mean


def finite_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are numbers, by name."""
    finite = {}
    for name, value in sorted(metrics.items()):
        if math.isfinite(value):
            finite[name] = float(value)
    return finite


def number_or_none(value: float | None) -> float | None:
    """The value as JSON takes it: None for NaN and infinities."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)
