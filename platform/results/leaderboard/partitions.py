"""How unequal the clients of each setting are, as its runs tell."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from backstop.platform.results.figures.cells import Logged, final_figure, seed_of, setting

SKEW_FIGURES = ("label_skew", "size_ratio", "input_skew")


def splits_of(runs: Sequence[Logged]) -> dict[str, dict[str, Any]]:
    """Setting → its seeds that say how unequal the clients are, and each figure in the mean over
    them; None for what no run tells. A setting whose runs are older than the figures is not there.
    """
    by_setting: dict[str, dict[int, Logged]] = {}
    for run in runs:
        if final_figure(run, SKEW_FIGURES[0]) is not None:
            by_setting.setdefault(setting(run.spec), {})[seed_of(run)] = run
    return {name: _split(list(told.values())) for name, told in by_setting.items()}


def _split(runs: Sequence[Logged]) -> dict[str, Any]:
    """The split of a setting, of one run for each seed: all runs of a seed have the same."""
    figures: dict[str, Any] = {"seeds": sorted(map(seed_of, runs))}
    for name in SKEW_FIGURES:
        values = [final_figure(run, name) for run in runs]
        known = [value for value in values if value is not None]
        figures[name] = fmean(known) if known else None
    return figures
