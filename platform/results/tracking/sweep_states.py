"""How sweeps stand, read from the store alone, while they run or after; nothing is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from backstop.platform.params import BadInput
from backstop.platform.results.tracking import drivers
from backstop.platform.results.tracking.database import (
    PARENT,
    StoredTrial,
    is_database,
    stored_trials,
)
from backstop.platform.results.tracking.description import rerun_command
from backstop.platform.results.tracking.locations import local_path
from backstop.platform.results.tracking.log import DRIVER, TRACE
from backstop.platform.results.tracking.pace import seconds_per_run
from backstop.platform.results.tracking.progress import Progress, Running, read_progress
from backstop.platform.results.tracking.runs import TRIALS, find_experiment
from backstop.platform.results.tracking.store import (
    Store,
    check_exists,
    database_file,
    is_new,
    mlflow_client,
    refusing,
    search_runs,
)
from backstop.platform.results.tracking.sweep_runs import (
    ID,
    SPEC,
    FailedRun,
    SweepRuns,
    sort_runs,
)
from backstop.platform.results.tracking.sweeps import drivers_home, plan_in
from backstop.platform.specs.spec import spec_from_json
from backstop.platform.storage import Location

if TYPE_CHECKING:
    from mlflow.entities import Run as StoredRun

# running: somebody works on it; done: all is there; failed: what is missing has failed;
# interrupted: its driver died or was stopped; incomplete: the store did not take all of it;
# unknown: its driver works beside a folder that is not seen from here, and has been silent
SweepPhase = Literal["running", "done", "failed", "interrupted", "incomplete", "unknown"]
SILENCE = 90.0  # seconds after its last note for which such a driver counts as alive


class Failure(NamedTuple):
    """A run that has failed, and what to do about it."""

    id: str  # of its spec
    words: str
    reason: str
    log: str  # path or address of what was raised; empty where it was not kept
    command: str  # runs it again; empty where its plug-ins are gone, or MLflow never had it


class Driver(NamedTuple):
    """Who works on a sweep, or did so last."""

    alive: bool | None  # None: not known from here
    host: str = ""
    process: int | None = None
    directory: str = ""
    command: str = ""  # of the sweep
    noted: float | None = None  # its last sign of life


class SweepState(NamedTuple):
    """How one sweep stands. Times are seconds since 1970."""

    experiment: str
    space: str
    state: SweepPhase
    planned: int
    done: int
    running: Sequence[Running]
    running_count: int  # which may be more than are named
    failures: Sequence[Failure]
    pruned: int  # proposals of searches that were given up early
    left: int  # to come, or missing where nobody works on them
    began: float
    ended: float | None
    seconds_per_run: float | None
    driver: Driver

    @property
    def seconds_left(self) -> float | None:
        """How long the runs that are left take by the pace of the last ones; None where that
        cannot be told.
        """
        remaining = self.left + self.running_count
        if self.state != "running" or self.seconds_per_run is None or not remaining:
            return None
        return self.seconds_per_run * remaining

    @property
    def sound(self) -> bool:
        """Whether nothing has failed, and nothing is missing that nobody works on."""
        return self.state in ("running", "done") and not self.failures


class Place(NamedTuple):
    """Where sweeps are looked for, and when."""

    store: Store
    folder: Location  # of checkpoints and drivers, as commands name it
    now: float  # seconds since 1970

    @property
    def home(self) -> Path:
        """Where drivers are known."""
        return drivers_home(self.store, self.folder)


def read_states(place: Place, experiment: str | None = None) -> list[SweepState]:
    """The sweeps of one MLflow experiment, or of all, the newest first.

    Raises BadInput for an experiment that is not there.
    """
    store = place.store
    if is_new(store) and experiment is None:
        return []
    check_exists(store)
    states: list[SweepState] = []
    with refusing(store):
        for name, number in _experiments(store, experiment):
            states += _states_in(place, name, number)
    return sorted(states, key=lambda state: state.began, reverse=True)


def _experiments(store: Store, experiment: str | None) -> list[tuple[str, str]]:
    """Name and MLflow id of the one, or of all that there are."""
    if experiment is not None:
        return [(experiment, find_experiment(store, experiment))]
    known = mlflow_client(store.uri).search_experiments()
    return [(str(item.name), str(item.experiment_id)) for item in known]


def _states_in(
    place: Place,
    name: str,
    number: str,
) -> list[SweepState]:
    # the sweeps before their trials: what ends in between is done, and not missing
    sweeps = list(search_runs(place.store, number, "tags.`backstop.kind` = 'sweep'"))
    trials = _trials(place.store, number) if sweeps else []
    return [_state(place, name, sweep, trials) for sweep in sweeps]


def _trials(store: Store, number: str) -> list[StoredTrial]:
    """The trials of an experiment, the oldest first."""
    if is_database(store):
        return stored_trials(store, number)
    return [_as_trial(item) for item in search_runs(store, number, TRIALS)]


def _as_trial(item: StoredRun) -> StoredTrial:
    """A trial of MLflow's API."""
    info = item.info
    return StoredTrial(
        run_id=str(info.run_id),
        status=str(info.status),
        started=int(info.start_time),
        ended=info.end_time,
        artifact_uri=str(info.artifact_uri),
        tags=item.data.tags,
    )


def _state(
    place: Place,
    experiment: str,
    sweep: StoredRun,
    trials: Sequence[StoredTrial],
) -> SweepState:
    """How a sweep stands, by its own run in MLflow and the experiment's trials."""
    tags, info = sweep.data.tags, sweep.info
    name = str(tags.get(DRIVER, ""))
    progress = _own_progress(tags, name)
    driver = _driver(place, name, str(info.status), progress)
    planned = plan_in(tags)
    runs = sort_runs(
        [trial for trial in trials if _belongs(trial, planned, str(info.run_id))],
        planned=planned,
        progress=progress,
        at_work=() if driver.alive is False else (name,),
    )
    expected, done, running = _counts(runs, planned, progress)
    left = max(0, expected - done - running - len(runs.failed))
    return SweepState(
        experiment=experiment,
        space=str(tags.get("backstop.space", "")),
        state=_judge(driver.alive, str(info.status), left, bool(runs.failed)),
        planned=expected,
        done=done,
        running=runs.running,
        running_count=running,
        failures=[_failure(place, experiment, run) for run in runs.failed],
        pruned=progress.pruned if progress else 0,
        left=left,
        began=progress.began if progress else info.start_time / 1000,
        ended=info.end_time / 1000 if info.end_time and driver.alive is False else None,
        seconds_per_run=seconds_per_run(runs.ends(name)),
        driver=driver,
    )


def _own_progress(tags: Mapping[str, str], name: str) -> Progress | None:
    """What a driver has noted; None while there is only the note of one before it."""
    progress = read_progress(tags)
    return progress if progress and progress.driver == name else None


def _belongs(
    trial: StoredTrial,
    planned: Mapping[str, str],
    sweep: str,
) -> bool:
    """Whether a sweep counts a trial: whoever ran it, where it is planned."""
    if planned:
        return trial.tags.get(ID) in planned
    return trial.tags.get(PARENT) == sweep


def _driver(
    place: Place,
    name: str,
    status: str,
    progress: Progress | None,
) -> Driver:
    """The driver of a sweep whose MLflow run has that status."""
    noted = progress.noted if progress else None
    alive = _alive(place, name, noted) if status == "RUNNING" else False
    if progress is None:
        return Driver(alive)
    return Driver(
        alive,
        host=progress.host,
        process=progress.process,
        directory=progress.directory,
        command=progress.command,
        noted=noted,
    )


def _alive(
    place: Place,
    name: str,
    noted: float | None,
) -> bool | None:
    """Whether a driver is alive: by its lock, else by its last sign of life."""
    gone = drivers.gone(place.home, name) if name else True
    if gone is not None or database_file(place.store) is not None:
        return gone is False
    if noted is not None and place.now - noted < SILENCE:
        return True
    return None


def _counts(
    runs: SweepRuns,
    planned: Mapping[str, str],
    progress: Progress | None,
) -> tuple[int, int, int]:
    """Runs in all, done and running. A search plans as it goes, and may find runs of another sweep
    done: its driver knows.
    """
    done, running = len(runs.done), len(runs.running)
    if progress is None:
        return len(planned) or done + running + len(runs.failed), done, running
    if running:
        running = max(running, progress.running_count)
    if planned:
        return len(planned), done, running
    return progress.expected, max(done, progress.done), running


def _judge(
    alive: bool | None,
    status: str,
    left: int,
    failed: bool,
) -> SweepPhase:
    if alive is not False:
        return "running" if alive else "unknown"
    if left and status in ("RUNNING", "KILLED"):
        return "interrupted"
    if failed:
        return "failed"
    return "incomplete" if left else "done"


def _failure(
    place: Place,
    experiment: str,
    run: FailedRun,
) -> Failure:
    return Failure(
        run.id,
        run.words,
        run.reason or "no reason is known",
        _log(run.trial),
        _command(place, experiment, run.trial),
    )


def _log(trial: StoredTrial | None) -> str:
    """Where what a run raised is kept; empty where it is not."""
    if trial is None:
        return ""
    folder = local_path(trial.artifact_uri)
    if folder is None:
        return f"{trial.artifact_uri}/{TRACE}"
    file = folder / TRACE
    return str(file) if file.exists() else ""


def _command(
    place: Place,
    experiment: str,
    trial: StoredTrial | None,
) -> str:
    """The command that runs a failed run again, where it belongs."""
    try:
        spec = spec_from_json(json.loads(trial.tags[SPEC])) if trial else None
    except (BadInput, KeyError):
        return ""
    return "" if spec is None else rerun_command(spec, experiment, str(place.folder))
