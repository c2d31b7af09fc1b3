"""What a sweep will take, from what a few rounds of some of its runs took."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from backstop.platform.rounds import starts
from backstop.platform.specs.spec import Spec, spec_text
from backstop.platform.sweeps.calibration import Measured, run_kind
from backstop.platform.workers.sharing import TrialWorkers, round_seconds

# As the quickstart spends them, docs/speed.md: Ray and a trial's process until its first round, and
# what becomes of a run between its last round and the next one's first.
START_S, STORE_S = 8.0, 0.15
POINT_MIB = 410 / 2**20  # of MLflow's database, its indices and a run's parameters included


class Costs(NamedTuple):
    """What one run takes."""

    setup_s: float
    train_s: float  # of all rounds on one thread
    aggregate_s: float
    evaluate_s: float
    mib: float  # of the store
    measured: bool  # its attack and its defense were, in its setting

    @property
    def seconds(self) -> float:
        """All of it on one thread."""
        return self.setup_s + self.train_s + self.aggregate_s + self.evaluate_s + STORE_S


class RunRates:
    """What rounds take by setting, attack and defense; the mean of what is there for the rest."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        """Take what was measured, of at least one run."""
        self.measured = list(measured)

    def costs(self, spec: Spec) -> Costs:
        """What a run of the spec takes, without a warm-up."""
        of = run_kind(spec)
        in_setting = [item for item in self.measured if item.kind.setting == of.setting]
        attacked = [item for item in in_setting if item.kind.attack == of.attack]
        defended = [item for item in in_setting if item.kind.defense == of.defense]
        any_run = in_setting or self.measured
        evaluations = math.ceil(spec.rounds / spec.eval_every)
        points = fmean(item.points for item in any_run)
        model = fmean(item.model_mib for item in any_run)
        return Costs(
            setup_s=fmean(item.setup_s for item in any_run),
            train_s=spec.rounds * fmean(item.train_s for item in attacked or any_run),
            aggregate_s=spec.rounds * fmean(item.aggregate_s for item in defended or any_run),
            evaluate_s=evaluations * fmean(item.evaluate_s for item in defended or any_run),
            mib=model + evaluations * points * POINT_MIB,
            measured=bool(attacked and defended),
        )

    def warm_ups(self, specs: Iterable[Spec]) -> list[float]:
        """Seconds of each warm-up of the specs, on one thread."""
        shared = {spec_text(starts.warmup_spec(spec)): spec for spec in specs if spec.warmup}
        return [self.costs(spec.replace(rounds=spec.warmup)).train_s for spec in shared.values()]


class Outlook(NamedTuple):
    """What the runs that are left will take."""

    runs: int
    seconds: float  # of wall clock, from the command to the leaderboard
    processor_s: float  # of all runs on one thread each
    longest_s: float  # of one run as it is spread
    guessed: int  # runs whose attack or defense was not measured in their setting
    store_mib: float


def outlook(
    specs: Sequence[Spec],
    rates: RunRates,
    workers: TrialWorkers,
    at_once: int,
) -> Outlook:
    """What the specs take as trials of such workers, so many at a time."""
    each = [rates.costs(spec) for spec in specs]
    faster = _speedups(rates, workers)
    spread = [run.seconds - run.train_s + run.train_s / faster for run in each]
    warm = [seconds / faster for seconds in rates.warm_ups(specs)]
    return Outlook(
        runs=len(specs),
        seconds=START_S + makespan([*warm, *spread], at_once) if specs else 0.0,
        processor_s=sum(run.seconds for run in each) + sum(warm) * faster,
        longest_s=max(spread, default=0.0),
        guessed=sum(not run.measured for run in each),
        store_mib=sum(run.mib for run in each),
    )


def _speedups(rates: RunRates, workers: TrialWorkers) -> float:
    """How many times as fast the workers train, in the mean over what was measured."""
    alone = [round_seconds(item.load, 0, 1) for item in rates.measured]
    spread = [round_seconds(item.load, workers.actors, workers.threads) for item in rates.measured]
    return sum(alone) / sum(spread) if sum(spread) else 1.0


def makespan(seconds: Sequence[float], at_once: int) -> float:
    """When the last of the trials ends where each that ends makes room for the next in order.

    >>> makespan([3.0, 1.0, 1.0, 4.0], 2)
    6.0
    """
    ends = [0.0] * max(1, at_once)
    for taken in seconds:
        heapq.heapreplace(ends, ends[0] + taken)
    return max(ends)


def scaled(guess: Outlook, runs: int) -> Outlook:
    """The estimate for so many runs like those that were estimated: a search asks for more."""
    if not guess.runs or runs == guess.runs:
        return guess
    factor = runs / guess.runs
    return guess._replace(
        runs=runs,
        seconds=START_S + (guess.seconds - START_S) * factor,
        processor_s=guess.processor_s * factor,
        guessed=round(guess.guessed * factor),
        store_mib=guess.store_mib * factor,
    )


def by_setting(specs: Iterable[Spec], rates: RunRates) -> Mapping[str, tuple[int, float]]:
    """Setting in words → how many runs, and seconds of one in the mean."""
    grouped: dict[str, list[float]] = {}
    for spec in specs:
        words = f"{spec.dataset}, {spec.model}"
        grouped.setdefault(words, []).append(rates.costs(spec).seconds)
    return {words: (len(each), fmean(each)) for words, each in grouped.items()}
