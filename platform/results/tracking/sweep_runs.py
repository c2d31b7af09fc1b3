"""What became of the runs of one sweep, by what MLflow holds of them and what the driver noted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from backstop.platform.results.tracking.database import StoredTrial
from backstop.platform.results.tracking.log import DRIVER
from backstop.platform.results.tracking.progress import Progress, Running

# tags of a trial
ID, CELL, SPEC, ERROR = "backstop.id", "backstop.cell", "backstop.spec", "backstop.error"


class FailedRun(NamedTuple):
    """A run that has failed."""

    id: str  # of its spec
    words: str
    reason: str
    trial: StoredTrial | None  # None where it came to an end before MLflow had it


class SweepRuns(NamedTuple):
    """The runs of a sweep, each in one of three states; those that are missing are in none."""

    done: Mapping[str, StoredTrial]  # by spec id
    running: Sequence[Running]
    failed: Sequence[FailedRun]

    def ends(self, driver: str) -> list[float]:
        """When the runs of one driver were done, in order."""
        own = [trial for trial in self.done.values() if trial.tags.get(DRIVER, "") == driver]
        return sorted(trial.ended / 1000 for trial in own if trial.ended is not None)


def sort_runs(
    trials: Iterable[StoredTrial],
    *,
    planned: Mapping[str, str],
    progress: Progress | None,
    at_work: Iterable[str],
) -> SweepRuns:
    """Say of each run what became of it.

    ``trials`` come the oldest first; ``planned`` are spec ids with the runs in words; ``at_work``
    are the drivers that are alive. What failed before one of these began may be tried again.
    """
    alive = set(at_work)
    latest = _one_each(trials)
    done = {key: trial for key, trial in latest.items() if trial.status == "FINISHED"}
    current = progress if progress and progress.driver in alive else None
    running = {
        key: _as_running(trial, planned)
        for key, trial in latest.items()
        if trial.status == "RUNNING" and trial.tags.get(DRIVER) in alive
    }
    for noted in current.running if current else ():
        if noted.id not in done:
            running[noted.id] = noted
    failed = {
        key: FailedRun(key, _words(trial, planned), trial.tags.get(ERROR, ""), trial)
        for key, trial in latest.items()
        if trial.status == "FAILED" and (not alive or trial.tags.get(DRIVER) in alive)
    }
    for key, reason in progress.failures.items() if progress else ():
        known = latest.get(key)
        words = _words(known, planned) if known else planned.get(key, key)
        failed.setdefault(key, FailedRun(key, words, reason, known))
    over = [one for key, one in failed.items() if key not in done and key not in running]
    return SweepRuns(done, list(running.values()), over)


def _one_each(trials: Iterable[StoredTrial]) -> dict[str, StoredTrial]:
    """The finished run of each spec, else its newest one."""
    chosen: dict[str, StoredTrial] = {}
    for trial in trials:
        earlier = chosen.get(trial.tags.get(ID, ""))
        if earlier is None or earlier.status != "FINISHED":
            chosen[trial.tags.get(ID, "")] = trial
    return chosen


def _as_running(trial: StoredTrial, planned: Mapping[str, str]) -> Running:
    """A run of which MLflow knows that it has begun, and its driver has noted nothing."""
    spec = json.loads(trial.tags.get(SPEC, "{}"))
    return Running(
        trial.tags.get(ID, ""),
        _words(trial, planned),
        since=trial.started / 1000,
        round=None,
        rounds=spec.get("rounds"),
    )


def _words(trial: StoredTrial, planned: Mapping[str, str]) -> str:
    """A run for people: as the plan has it, else what it is of and its seed."""
    spec_id = trial.tags.get(ID, "")
    if spec_id in planned:
        return planned[spec_id]
    seed = json.loads(trial.tags.get(SPEC, "{}")).get("seed")
    cell = trial.tags.get(CELL, spec_id)
    return cell if seed is None else f"{cell}, seed {seed}"
