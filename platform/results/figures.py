"""Means over seeds with their bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backstop.platform.seeds import stream

DRAWS = 2000  # bootstrap resamples: the 2.5 % quantile rests on 50 of them
Draws = NDArray[np.float64]  # (DRAWS,) resampled means


class Figure(NamedTuple):
    """A mean with the means of its bootstrap resamples."""

    mean: float
    draws: Draws

    @property
    def interval(self) -> dict[str, float]:
        """``{"mean", "low", "high"}`` with the 95 % percentile interval."""
        ranked = np.sort(self.draws)
        return {
            "mean": self.mean,
            "low": _quantile(ranked, 0.025),
            "high": _quantile(ranked, 0.975),
        }


def _quantile(ranked: Draws, share: float) -> float:
    """Between the two nearest of the ascending draws, in proportion."""
    last = len(ranked) - 1
    rank = share * last
    low = math.floor(rank)
    high = min(low + 1, last)
    below = float(ranked[low])
    above = float(ranked[high])
    if below == above:
        return below
    return below + (rank - low) * (above - below)


@lru_cache
def _weights(seeds: int) -> NDArray[np.float64]:
    """How often each of n seeds is drawn in each resample, (DRAWS, n). All cells with n seeds share
    it: that pairs them.

    Draws come from sha256, whose stream no library version changes.
    """
    counts = np.zeros((DRAWS, seeds))
    for draw in range(DRAWS):
        for pick in range(seeds):
            drawn = stream(0, "bootstrap", seeds, draw, pick) % seeds
            counts[draw, drawn] += 1
    return counts


def figure_over_seeds(values: Mapping[int, float]) -> Figure | None:
    """The mean over seeds, or None without any."""
    if not values:
        return None
    listed = [values[seed] for seed in sorted(values)]
    if min(listed) == max(listed):
        return _constant(listed[0])
    mean = math.fsum(listed) / len(listed)
    return Figure(mean, _resampled_means(listed))


def _constant(value: float) -> Figure:
    """The figure of seeds that all have this value."""
    return Figure(value, np.full(DRAWS, value))


def _resampled_means(values: Sequence[float]) -> Draws:
    """The mean of each bootstrap resample."""
    total = np.zeros(DRAWS)
    # in a fixed order: a matrix product's order of sums depends on the processor
    for times_drawn, value in zip(_weights(len(values)).T, values, strict=True):
        total += times_drawn * value
    return total / len(values)


def average(figures: Iterable[Figure | None]) -> Figure | None:
    """The mean of the figures that exist."""
    known = [figure for figure in figures if figure is not None]
    if not known:
        return None
    mean = math.fsum(figure.mean for figure in known) / len(known)
    return Figure(mean, _mean_draws(known))


def _mean_draws(figures: Sequence[Figure]) -> Draws:
    """Resample by resample, the mean of the figures."""
    total = np.zeros(DRAWS)
    for figure in figures:
        total += figure.draws
    return total / len(figures)


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


def interval_of(figure: Figure | None) -> dict[str, float] | None:
    """Mean and interval as JSON, None where there is no figure."""
    return None if figure is None else figure.interval


def mean_of(figure: Figure | None) -> float | None:
    """The mean, None where there is no figure."""
    return None if figure is None else figure.mean
