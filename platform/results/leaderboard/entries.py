"""Cells and runs as the document holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from backstop.platform import plugins
from backstop.platform.results.figures.cells import (
    ACCURACY,
    FIGURES,
    SAMPLES,
    SUCCESS,
    UNTRIGGERED,
    Cell,
    Logged,
    curve_of,
)
from backstop.platform.results.figures.means import (
    Estimate,
    estimate,
    figure_of,
    finite_metrics,
    share_of,
)
from backstop.platform.results.figures.names import part_label, stages_of
from backstop.platform.results.figures.scored import (
    COST_UNDER_ATTACK,
    COST_WITHOUT_ATTACK,
    EXCESS,
    GAINS,
    NATURAL,
    RETAINED,
    ScoredCell,
)
from backstop.platform.results.figures.trajectories import by_round_fields
from backstop.platform.results.figures.twins import Twins
from backstop.platform.rounds.durability import lifespan, lifetime

LIFETIME = ("time_to_backdoor", "durability", "lifespan")
SHARE_FIGURES = (
    *FIGURES,
    EXCESS,
    COST_UNDER_ATTACK,
    COST_WITHOUT_ATTACK,
    UNTRIGGERED,
    NATURAL,
)
CELL_FIGURES = (*SHARE_FIGURES, *GAINS, RETAINED)
ABSENT_FIELD = (
    "absent_adversaries"  # of a cell with several, and of its row: left out where none is
)
NORMAL = 1.959963984540054  # 97.5 % of a normal distribution lie below


def cell_entry(scored: ScoredCell, *, searched: bool = False) -> dict[str, Any]:
    """A cell as the document holds it; ``searched``: a search has chosen its attack."""
    cell, twins = scored.cell, scored.twins
    return {
        **_cell_spec(cell),
        "seeds": list(cell.seeds),
        "knows": plugins.knows(stage["name"] for stage in cell.spec["attack"]),
        "searched": searched,
        **{name: share_of(scored.of(name)) for name in SHARE_FIGURES},
        **{name: figure_of(scored.of(name)) for name in (*GAINS, RETAINED)},
        **_samples(cell),
        **by_round_fields(cell, twins),
        **_lifetime(cell, twins),
        "bites": scored.verdict.bites,
        "left_out": scored.verdict.reason,
        "unattacked_seeds": list(cell.unattacked),
        "collapsed_seeds": list(scored.collapsed),
        "borrowed_twins": list(twins.borrowed),
        "diverged": len(cell.diverged),
        **_absent_adversaries(cell),
    }


def run_entry(run: Logged) -> dict[str, Any]:
    """A run as the document holds it."""
    return {
        "id": run.id,
        "spec": dict(sorted(run.spec.items())),
        "metrics": finite_metrics(run.metrics),
        "data": run.data,
        "success_by_round": [list(point) for point in curve_of(run, SUCCESS)],
        "accuracy_by_round": [list(point) for point in curve_of(run, ACCURACY)],
    }


def _cell_spec(cell: Cell) -> dict[str, Any]:
    """What was run in a cell."""
    spec = cell.spec
    return {
        "dataset": part_label(spec["dataset"]),
        "model": part_label(spec["model"]),
        **cell.key._asdict(),
        "attack_stages": stages_of(spec["attack"]),
        "defense_stages": stages_of(spec["defense"]),
        "family": cell.attack_family,
    }


def _absent_adversaries(cell: Cell) -> dict[str, Any]:
    """Which of several adversaries never attacked in which seeds; nothing where all did."""
    seeds = {str(number): list(absent) for number, absent in cell.absent.items()}
    return {ABSENT_FIELD: seeds} if seeds else {}


def _samples(cell: Cell) -> dict[str, Any]:
    """How many triggered inputs are behind a seed's attack success, and between which rates they
    alone leave the mean.
    """
    success = estimate(cell.values[SUCCESS])
    samples = [int(count) for count in cell.values[SAMPLES].values()]
    if success is None or not samples:
        return {"success_samples": None, "success_binomial": None}
    fewest = min(samples)
    return {
        "success_samples": fewest,
        "success_binomial": wilson(success.mean, fewest),
    }


def wilson(rate: float, samples: int) -> dict[str, float]:
    """The 95 % interval of a binomial share.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    Journal of the American Statistical Association, 1927.

    >>> {end: round(share, 4) for end, share in wilson(0.0, 25).items()}
    {'low': 0.0, 'high': 0.1332}
    """
    square = NORMAL**2 / samples
    center = (rate + square / 2) / (1 + square)
    half = math.sqrt(square * rate * (1 - rate) + square**2 / 4) / (1 + square)
    return {"low": max(0.0, center - half), "high": min(1.0, center + half)}


def _lifetime(cell: Cell, twins: Twins) -> dict[str, Any]:
    """How long the backdoor takes and lasts in the mean over the seeds that say so, and in how many
    of them it was still there at the end: by half of its excess, and by one half.
    """
    spans = _spans(cell, twins)
    planted = [span for span in spans.values() if "time_to_backdoor" in span]
    return {
        **{name: figure_of(_mean_span(spans, name)) for name in LIFETIME},
        "planted_seeds": len(planted),
        "still_active": _seeds_that(spans, "still_active"),
        "still_over_half": _seeds_that(spans, "still_over_half"),
    }


def _spans(cell: Cell, twins: Twins) -> dict[int, dict[str, float]]:
    """Seed → how long its backdoor takes and lasts."""
    spans = {}
    for seed, rates in cell.success.items():
        twin = twins.by_round.get(seed, {})
        spans[seed] = lifetime(rates, twin, cell.schedule) | lifespan(rates, cell.schedule)
    return spans


def _seeds_that(spans: Mapping[int, Mapping[str, float]], name: str) -> int | None:
    """In how many seeds it is so; None where none says whether it is."""
    known = [span[name] for span in spans.values() if name in span]
    return int(sum(known)) if known else None


def _mean_span(spans: Mapping[int, Mapping[str, float]], name: str) -> Estimate | None:
    """The mean over the seeds that have such a span."""
    known = {seed: span[name] for seed, span in spans.items() if name in span}
    return estimate(known)
