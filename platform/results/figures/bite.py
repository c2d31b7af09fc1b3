"""Does an attack do anything: what undefended FedAvg shows under it against what the same inputs
achieve anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from backstop.platform.results.figures.cells import SUCCESS, UNTRIGGERED, Cell
from backstop.platform.results.figures.intervals import figure
from backstop.platform.results.figures.means import SeedValues, common_seeds
from backstop.platform.results.figures.twins import Twins
from backstop.platform.results.figures.wording import percent
from backstop.platform.rounds.finals import BITE


class Verdict(NamedTuple):
    """Whether an attack bites, None where it cannot be told; and if it does not, a sentence why."""

    bites: bool | None
    reason: str | None = None


def judge_attack(
    cell: Cell,
    undefended: Cell | None,
    twins: Twins,
) -> Verdict:
    """Whether the cell's attack bites; not known where the runs that tell are not there, or where
    the attack has no success to measure. ``twins`` are the undefended cell's.
    """
    if not cell.attacked:
        return Verdict(None)
    if not cell.seeds:
        return Verdict(bites=False, reason="no malicious client took part in an attacked round")
    if undefended is None or not undefended.values[SUCCESS]:
        return Verdict(None)
    anyway = (
        (undefended.values[UNTRIGGERED], "the same inputs without the trigger"),
        (twins.final, "its clean twin"),
    )
    for rates, name in anyway:
        reason = _no_more_than(undefended, rates, name)
        if reason:
            return Verdict(bites=False, reason=reason)
    return Verdict(bites=True) if twins.final else Verdict(None)


def _no_more_than(
    undefended: Cell,
    others: SeedValues,
    name: str,
) -> str:
    """A sentence where the attack's success is not surely above the other rates of the same seeds:
    by :data:`BITE` in the mean, and by more than nothing at the lower end of the figure.
    """
    reached = undefended.values[SUCCESS]
    seeds = common_seeds([reached, others])
    above = figure([reached[seed] - others[seed] for seed in seeds])
    if above is None or (above["mean"] >= BITE and above["low"] > 0):
        return ""
    ours = _mean([reached[seed] for seed in seeds])
    theirs = _mean([others[seed] for seed in seeds])
    faded = _faded_from(undefended, seeds, theirs)
    line = f"under FedAvg it has {percent(ours)} %{faded}, {name} {percent(theirs)} %"
    if above["mean"] < BITE:
        return line
    return f"{line}: a difference of {percent(above['low'])} to {percent(above['high'])} points"


def _faded_from(
    cell: Cell,
    seeds: Sequence[int],
    anyway: float,
) -> str:
    """What an attack that stops had while it attacked, where that was enough."""
    curves = [cell.success.get(seed, ()) for seed in seeds]
    if cell.spec["attack_stop"] is None or not all(curves):
        return ""
    peak = _mean([max(rate for _, rate in curve) for curve in curves])
    if peak - anyway < BITE:
        return ""
    return f" at the end, after {percent(peak)} % while it attacked"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
