"""Specs as Ray Tune trials, one experiment each.

A trial process writes its own MLflow run and keeps a checkpoint addressed by the spec's id in the
store. A trial that loses its worker or runs out of something is started again and goes on from
there, and so does the same command after the whole sweep was killed. What a stage raises by itself
it would raise again: its trial has failed at once.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ray import tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune import (
    CheckpointConfig,
    FailureConfig,
    PlacementGroupFactory,
    RunConfig,
    TuneConfig,
    Tuner,
)
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from backstop.platform import vault
from backstop.platform.contract import BrokenStage
from backstop.platform.params import BadInput
from backstop.platform.specs.spec import Spec, spec_from_json, spec_to_json
from backstop.platform.sweeps import failures
from backstop.platform.sweeps.backend import Observer, Task
from backstop.platform.sweeps.failures import Failures
from backstop.platform.sweeps.queues import Queue
from backstop.platform.sweeps.session import Outcome, Session
from backstop.platform.workers.fingerprints import Alike, node_fingerprint
from backstop.platform.workers.limits import Guard
from backstop.platform.workers.sharing import TrialWorkers

REASON_LIMIT = 300  # characters of a failure's reason
BROKEN_STAGE = "backstop.platform.contract.BrokenStage: "  # before a line that says it all
# Ray's words for a worker whose machine is gone
LOST_NODE = ("its node has died", "node was preempted", "owner has died")
# in the line of a stage that lacked memory, disk, threads or its GPU, which may be there next time
SHORTAGES = ("MemoryError", "OSError: ", "allocate memory", "CUDA error", "start new thread")


class Placement(NamedTuple):
    """Where trials go."""

    workers: TrialWorkers
    fitting: int  # trials at a time that there are processors for
    at_once: int | None = None  # no more than these
    alike: Alike = Alike("", None)  # the nodes


class Told(NamedTuple):
    """What a trial tells in one piece: of each figure by itself Tune would keep means, extremes and
    the last ten values for as long as the sweep lasts, 100 kB a trial.
    """

    last: Mapping[str, float] = {}  # figures of the last round that is evaluated
    outcome: Outcome | None = None  # once the run is done


class Trial(tune.Trainable):
    """One experiment after another in one process; client actors outlive a trial."""

    session: Session

    # tune.with_parameters adds task and workers
    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        task: Task,
        workers: TrialWorkers,
        fingerprint: str = "",
    ) -> None:
        """Start what trains the clients. The experiment begins with the first step: to begin
        may take long (a warm-up), and as long as a process starts, Tune may give its trial to
        another one. A node that has joined the cluster and computes otherwise is refused.
        """
        if fingerprint and (here := node_fingerprint(task.device)) != fingerprint:
            raise BadInput(f"a node that has joined is {here}; the sweep runs on {fingerprint}")
        torch.set_num_threads(1)
        self.task, self.idle_since = task, time.perf_counter()
        vault.keep_with(task.destination.checkpoints.parent)
        self.clients = workers.clients(task.device)
        self.guard = Guard(workers.limits)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The process takes up the next trial."""
        self.next_spec: dict[str, Any] | None = new_config["spec"]
        self.name: str = new_config["id"]
        self.pause_s: float = new_config.get("pause_s", 0.0)
        return True

    def step(self) -> dict[str, Any]:
        """Rounds for some seconds; after the last one also what became of the run.

        What a stage would raise again is a result, the last one: Tune starts no trial again that
        ends with one.
        """
        try:
            return self._advance()
        except Exception as error:
            self.guard.rest()
            failures.write_log(self.task.destination.logs, self.name, error)
            if not isinstance(error, BrokenStage) or may_pass(error):
                raise
            self.idle_since = time.perf_counter()
            return {
                "rounds": 0,
                "report": Told(),
                "done": True,
                "failure": str(error),
            }

    def _advance(self) -> dict[str, Any]:
        if self.next_spec is not None:
            self._begin(spec_from_json(self.next_spec))
            self.next_spec = None
        session = self.session
        for _ in session.next_rounds():
            pass
        outcome = None
        if session.done:
            self.guard.rest()  # all is trained: a slow store is no fault of the trial
            outcome = self._finish()
        last = session.records[-1].metrics if session.records else {}
        return {
            "id": session.spec.id,
            "rounds": session.experiment.state.round,
            "report": Told(dict(last), outcome),
            "done": session.done,
        }

    def _begin(self, spec: Spec) -> None:
        """Take up an experiment where its checkpoint left off, if it has one."""
        time.sleep(self.pause_s)
        self.guard.begin(self.name)
        self.started_at = time.perf_counter()
        self.session = self.task.session(spec, self.clients)
        # since the process's last trial was done: what Tune and the set-up take
        self.startup_s = time.perf_counter() - self.idle_since

    def _finish(self) -> Outcome:
        """Write the run. What a tracking server that is away has missed stays in the checkpoint:
        this sweep's end tries again, and so does the next command.
        """
        seconds = time.perf_counter() - self.started_at
        outcome = self.session.finish()
        self.idle_since = time.perf_counter()
        timing = {"seconds": seconds, "waited": self.startup_s}
        return outcome._replace(finals=outcome.finals | timing)

    def cleanup(self) -> None:
        """Give back what trains the clients."""
        self.guard.close()
        self.clients.close()


def may_pass(error: BrokenStage) -> bool:
    """Whether a stage broke for want of what its machine may have another time.

    >>> may_pass(BrokenStage("defense krum", "OutOfMemoryError: CUDA out of memory"))
    True
    >>> may_pass(BrokenStage("defense krum", "ValueError: no luck"))
    False
    """
    return any(shortage in error.reason for shortage in SHORTAGES)


def failure_reason(error: object) -> str:
    r"""The reason of a trial's failure in one line: what its own code raised, else Ray's first
    words.

    >>> failure_reason('Failure # 1\nray::f()\n  File "a.py", line 3, in f\nValueError: no luck\n')
    'ValueError: no luck'
    >>> failure_reason('File "a.py"\nbackstop.platform.contract.BrokenStage: defense krum: no luck')
    'defense krum: no luck'
    """
    lines = [line.strip() for line in str(error or "").splitlines()]
    lines = [line for line in lines if line and not line.startswith("Failure #")]
    if not lines:
        return "no reason is known"
    raised = any(line.startswith('File "') for line in lines)
    reason = lines[-1] if raised else lines[0]
    return reason.removeprefix(BROKEN_STAGE)[:REASON_LIMIT]


class Generations(Searcher):
    """Hands specs to Tune in the queue's order and holds a search's next generation back until its
    last one is done.
    """

    def __init__(self, queue: Queue) -> None:
        """Take the queue, which the driver goes on to read."""
        super().__init__(metric="rounds", mode="max")
        self.queue = queue

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its searcher for a restore of its own; ours reads MLflow instead, so there
        is nothing to keep.
        """
        return (type(self), (None,))

    def __deepcopy__(self, memo: dict[int, Any]) -> Generations:
        """The driver reads the queue, so there is only one."""
        return self

    def set_search_properties(
        self,
        metric: str | None,
        mode: str | None,
        config: dict[str, Any],
        **spec: Any,
    ) -> bool:
        """Nothing that Tune could set matters here."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next spec; None while runs have to end before there is one."""
        if not self.queue.fill():
            return None if self.queue.unfinished() else Searcher.FINISHED
        spec = self.queue.waiting.pop(0)
        return {"id": spec.id, "spec": spec_to_json(spec)}

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,
    ) -> None:
        """What a trial's end means is told to the queue by :class:`Watching`."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: what is done is read from MLflow."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class Retrying(FIFOScheduler):
    """Starts a trial again that has failed, until it is to blame for it."""

    def __init__(self, logs: Path) -> None:
        """``logs`` is where a trial says how it went beyond its limits."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.logs = logs
        self.failures = Failures()
        self.reasons: dict[str, str] = {}  # of trials that have failed for good, by the spec's id

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is new, or has just failed and is about to start again."""
        if not trial.num_failures:
            return
        name = trial.config["id"]
        if reason := self.verdict(name, trial):
            self.reasons[name] = reason
            tune_controller.stop_trial(trial)
        trial.config["pause_s"] = self.failures.pause(name)

    def verdict(self, name: str, trial: Any) -> str:
        """Why the trial that has just failed has failed for good; empty where it has not."""
        if reason := failures.limit_reason(self.logs, name):
            return reason
        error = last_error(trial)
        if not isinstance(error, RayActorError):
            final = self.failures.final_error(name)
            return failure_reason(trial.get_error()) if final else ""
        if node_died(error):
            self.failures.lost(name)
            return ""
        if self.failures.final_death(name, trial.last_result.get("rounds", 0)):
            failures.write_log(self.logs, name, error)
            return death_reason(error)
        return ""


def last_error(trial: Any) -> Exception | None:
    """What a trial of Tune's has failed of last; None for what cannot be read back."""
    try:
        error: Exception | None = trial.get_pickled_error()
    except Exception:  # noqa: BLE001 -- whatever a class of somebody else's makes of it
        return None
    if isinstance(error, RayTaskError):
        cause: Exception = error.as_instanceof_cause()  # type: ignore[no-untyped-call]
        return cause
    return error


def node_died(error: RayActorError) -> bool:
    """Whether a worker has died because its machine was lost or taken away.

    >>> node_died(RayActorError(error_msg="The actor died because its node has died. Node Id: 7b"))
    True
    >>> node_died(RayActorError(preempted=True)), node_died(RayActorError())
    (True, False)
    """
    words = str(error)
    return error.preempted or any(phrase in words for phrase in LOST_NODE)


def death_reason(error: RayActorError) -> str:
    """What killed a worker again and again, as Ray's last words have it."""
    *_, last = str(error).strip().splitlines() or [""]
    reason = f"its worker died {failures.DEATHS} times in the same place: {last.strip()}"
    return reason[:REASON_LIMIT]


class Silent(TrialProgressCallback):
    """Takes the place of what Tune prints on stdout when a trial is stopped."""

    def _print(self, msg: str) -> None:
        pass


class Watching(tune.Callback):
    """Tells the queue and the observer how trials go."""

    def __init__(
        self,
        queue: Queue,
        observer: Observer,
        retrying: Retrying,
    ) -> None:
        """``queue`` knows the specs by id, ``retrying`` why trials have failed for good."""
        self.queue, self.observer, self.retrying = queue, observer, retrying

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its callbacks for a restore of its own, which is not used."""
        return (type(self), (None, None, None))

    def __deepcopy__(self, memo: dict[int, Any]) -> Watching:
        """There is one queue."""
        return self

    def _spec(self, trial: Any) -> Spec:
        return self.queue.specs[trial.config["id"]]

    def on_trial_start(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        **info: Any,
    ) -> None:
        """A trial has its resources."""
        failures.forget_log(self.retrying.logs, trial.config["id"])
        self.observer.started(self._spec(trial))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """A trial has done some rounds."""
        if "failure" not in result:
            self.observer.result(self._spec(trial), result["rounds"], result["report"].last)

    def on_trial_complete(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        **info: Any,
    ) -> None:
        """A trial is done, or has failed for good."""
        reason = self.retrying.reasons.get(trial.config["id"], "")
        report = trial.last_result.pop("report", Told())
        _forget(trial)
        if failure := reason or trial.last_result.get("failure"):
            self._failed(trial, failure)
            return
        spec, outcome = self._spec(trial), report.outcome
        self.queue.ended(spec, outcome)
        self.observer.ended(spec, outcome.finals, outcome.stored)

    def on_trial_error(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        **info: Any,
    ) -> None:
        """Tune itself has given a trial up."""
        self._failed(trial, failure_reason(trial.get_error()))

    def _failed(self, trial: Any, reason: str) -> None:
        spec = self._spec(trial)
        self.queue.failed(spec, reason)
        self.observer.ended(spec, None, False)


def _forget(trial: Any) -> None:
    """Drop what a trial of the past is not asked for again: Tune keeps every trial for as long as
    the sweep lasts, and of its figures means, extremes and the last ten values, 20 kB of 33.
    """
    trial.run_metadata.metric_analysis = {}
    trial.run_metadata.metric_n_steps = {}
    trial.last_result.pop("config", None)
    trial.evaluated_params = {}


@contextmanager
def prepared_processes() -> Iterator[None]:
    """Let trials run in the processes that a local Ray has started in advance.

    Tune gives its trials an environment of their own, for which a process would be started anew.
    On this machine all processes have the driver's environment anyway.
    """
    from ray.tune.execution import class_cache

    kept = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = kept


@contextmanager
def saved_once() -> Iterator[None]:
    """Let Tune save its state at the beginning, which it looks for at the end, and not again and
    again: 50 kB a trial, all of it each time, for a restore of its own. Ours reads the store.
    """
    from ray.tune.execution.tune_controller import TuneController

    save = TuneController.checkpoint
    saved: list[Any] = []

    def save_first(controller: Any, force: bool = False, wait: bool = False) -> Any:
        del force, wait
        if controller not in saved:
            saved.append(controller)
            save(controller, True, True)

    TuneController.checkpoint = save_first  # type: ignore[assignment]
    try:
        yield
    finally:
        TuneController.checkpoint = save  # type: ignore[method-assign]


def run_trials(
    queue: Queue,
    task: Task,
    observer: Observer,
    placement: Placement,
) -> None:
    """Run everything that is in the queue on the Ray that is running, as many trials together as
    fit.
    """
    # Tune keeps one trial pending for a searcher of one's own. A trial that ends then takes the
    # pending one over and stops the actor that starts for it, so that with short trials a second
    # actor never comes up. As many pending trials as fit start all actors together.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(placement.fitting)
    # That Tune cannot save its state is no news; a full disk is said elsewhere, in a line.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # the end of the sweep says what failed
    retrying = Retrying(task.destination.logs)
    tuning = TuneConfig(
        search_alg=Generations(queue),
        scheduler=retrying,
        num_samples=-1,
        reuse_actors=True,
        max_concurrent_trials=placement.at_once,
    )
    running = RunConfig(
        name="tune",
        storage_path=str(task.destination.home),
        verbose=0,
        failure_config=FailureConfig(max_failures=-1),  # the scheduler counts
        checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
        callbacks=[Watching(queue, observer, retrying), Silent()],
    )
    with saved_once():
        Tuner(_trainable(task, placement), tune_config=tuning, run_config=running).fit()


def _trainable(task: Task, placement: Placement) -> Any:
    """A trial of the task as Tune takes it, with the resources that it needs."""
    workers, alike = placement.workers, placement.alike
    where: dict[str, Any] = {}
    if alike.nodes is not None:
        label = {"ray.io/node-id": f"in({','.join(alike.nodes)})"}
        where["bundle_label_selector"] = [label for bundle in workers.bundles if bundle]
    trial = tune.with_parameters(
        Trial,
        task=task,
        workers=workers,
        fingerprint=alike.fingerprint,
    )
    factory = PlacementGroupFactory(workers.bundles, strategy="PACK", **where)
    return tune.with_resources(trial, factory)
