"""A plan of specs → Ray Tune trials, one experiment each. Ray decides where things run, never what
comes out.

A trial process writes its own MLflow run and keeps a checkpoint addressed by the spec's id in the
store. A trial that fails is started again and goes on from there, and so does the same command
after the whole sweep was killed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ray import tune
from ray.tune import (
    CheckpointConfig,
    FailureConfig,
    PlacementGroupFactory,
    RunConfig,
    TuneConfig,
    Tuner,
)
from ray.tune.search import Searcher

from backstop.platform.contract import Record
from backstop.platform.experiment import Experiment
from backstop.platform.results.log import Log
from backstop.platform.results.store import Store
from backstop.platform.rounds.checkpoint import SAVE_INTERVAL_S, Checkpoint
from backstop.platform.rounds.finals import final
from backstop.platform.specs.spec import Spec, spec_from_json, spec_to_json
from backstop.platform.sweeps.plan import Finals, Queue, Unstored
from backstop.platform.workers.actors import OnActors, Share

# seconds of rounds that a trial does before it saves and reports; a long round is a step of its own
STEP = SAVE_INTERVAL_S
REASON = 300  # characters of a failure's reason
RETRIES = 2  # times that a failed trial is started again


class Task(NamedTuple):
    """What all trials of a sweep share: where to read, where to write, whom to train on."""

    store: Store
    experiment: str  # MLflow experiment id
    parent: str  # MLflow run id of the sweep
    space: str
    checkpoints: Path
    folder: Path
    device: str
    actors: int  # client actors of a trial; 0: the trial trains its clients itself
    share: Share  # of one client actor
    driver: str  # who the runs belong to


class Progress(NamedTuple):
    """What the driver is told as trials go."""

    started: Callable[[Spec], None]
    result: Callable[[Spec, int, Mapping[str, float]], None]  # rounds done, last metrics
    # None: failed for good; whether it is stored
    ended: Callable[[Spec, Finals | None, bool], None]


class Trial(tune.Trainable):
    """One experiment after another in one process; client actors outlive a trial."""

    running: Experiment

    def setup(self, config: dict[str, Any], task: Task) -> None:  # type: ignore[override]  # tune.with_parameters adds the task
        """Start the process's client actors. The experiment begins with the first step: to begin
        may take long (a warm-up), and as long as a process starts, Tune may give its trial to
        another one.
        """
        torch.set_num_threads(1)
        self.task, self.over = task, time.perf_counter()
        self.workers = (
            OnActors(task.actors, device=task.device, share=task.share) if task.actors else None
        )
        self.waiting: dict[str, Any] | None = config["spec"]

    def begin(self, document: dict[str, Any]) -> None:
        """Take up an experiment where its checkpoint left off, if it has one."""
        task, self.begun = self.task, time.perf_counter()
        spec = spec_from_json(document)
        self.running = Experiment(spec, task.folder, task.device, self.workers)
        self.checkpoint = Checkpoint(task.checkpoints, spec.id)
        self.records = self.running.resume(self.checkpoint)
        made = self.running.origin
        self.log = Log(
            task.store,
            task.experiment,
            spec,
            origin=made,
            space=task.space,
            parent=task.parent,
            driver=task.driver,
        )
        # what an earlier process has sent already is the same and is stored once
        for record in self.records:
            self.log.log(record)
        # since the process's last trial was done: what Tune and the set-up take
        self.waited = time.perf_counter() - self.over

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The process takes up the next trial."""
        self.waiting = new_config["spec"]
        return True

    def step(self) -> dict[str, Any]:
        """Rounds for some seconds; at the end the final metrics, once all of them are in MLflow."""
        if self.waiting is not None:
            self.begin(self.waiting)
            self.waiting = None
        running, until = self.running, time.perf_counter() + STEP
        while running.state.round < running.spec.rounds:
            record = self.attempt(running)
            if record is not None:
                self.records.append(record)
                self.log.log(record)
            if time.perf_counter() > until:
                break
        done = running.state.round >= running.spec.rounds
        last = self.records[-1].metrics if self.records else {}
        result: dict[str, Any] = {
            "id": running.spec.id,
            "rounds": running.state.round,
            "last": dict(last),
            "done": done,
        }
        if done:
            result |= self.finish()
        else:
            self.keep()
            self.log.flush(force=False)
        return result

    def keep(self) -> bool:
        """Save the checkpoint. A disk that is full costs what a kill would lose, not the run."""
        try:
            self.checkpoint.save(self.running.saved(self.records))
        except OSError:
            return False
        return True

    def attempt(self, running: Experiment) -> Record | None:
        """A round; what it raises is written to the MLflow run."""
        try:
            return running.round()
        except Exception as error:
            self.log.fail(f"round {running.state.round}: {type(error).__name__}: {error}")
            raise

    def finish(self) -> dict[str, Any]:
        """Write the run. What a tracking server that is away has missed stays in the checkpoint:
        this
        sweep's end tries again, and so does the next command.
        """
        running = self.running
        finals = final(self.records)
        seconds = time.perf_counter() - self.begun
        model = running.built.net.tensors(running.state.params, running.state.buffers)
        stored = self.log.finish(finals, model)
        kept = stored or self.keep()
        if stored:
            self.checkpoint.drop()
        self.over = time.perf_counter()
        return {
            "final": {**finals, "seconds": seconds, "waited": self.waited},
            "stored": stored,
            "kept": kept,
            "reason": self.log.error,
            "finding": self.log.finding,
        }

    def cleanup(self) -> None:
        """Give the client actors back."""
        if self.workers is not None:
            self.workers.close()


def why(error: object) -> str:
    r"""The reason of a trial's failure in one line: what its own code raised, else Ray's first
    words.

    >>> why('Failure # 1\nray::train()\n  File "a.py", line 3, in f\nValueError: no luck\n')
    'ValueError: no luck'
    """
    lines = [line.strip() for line in str(error or "").splitlines()]
    lines = [line for line in lines if line and not line.startswith("Failure #")]
    if not lines:
        return "no reason is known"
    raised = any(line.startswith('File "') for line in lines)
    return (lines[-1] if raised else lines[0])[:REASON]


class Generations(Searcher):
    """Hands specs to Tune in the queue's order and holds the next generation back until the last
    one is done.
    """

    def __init__(self, queue: Queue) -> None:
        """Take the queue, which the driver goes on to read."""
        super().__init__(metric="rounds", mode="max")
        self.queue = queue
        self.owner: dict[str, str] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its searcher for a restore of its own; ours reads MLflow instead, so there
        is nothing to keep.
        """
        return (type(self), (None,))

    def __deepcopy__(self, memo: dict[int, Any]) -> Generations:
        """The driver reads the queue, so there is only one."""
        return self

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Nothing that Tune could set matters here."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next spec; None while a generation is not done."""
        if not self.queue.waiting and self.queue.unfinished():
            return None
        if not self.queue.waiting and not self.queue.fill():
            return Searcher.FINISHED
        spec = self.queue.waiting.pop(0)
        self.owner[trial_id] = spec.id
        return {"id": spec.id, "spec": spec_to_json(spec)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial is done, or has failed for good."""
        # Tune hands its searchers a flattened result: final/final/clean_accuracy
        flat = {} if error or not result else result
        finals = {
            key.removeprefix("final/"): value
            for key, value in flat.items()
            if key.startswith("final/")
        }
        self.queue.results[self.owner[trial_id]] = finals or None

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: what is done is read from MLflow."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class Watching(tune.Callback):
    """Tells the driver's table how trials go."""

    def __init__(self, queue: Queue, progress: Progress) -> None:
        """``queue`` knows the specs by id."""
        self.queue, self.progress = queue, progress

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its callbacks for a restore of its own, which is not used."""
        return (type(self), (None, None))

    def __deepcopy__(self, memo: dict[int, Any]) -> Watching:
        """There is one table."""
        return self

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has its resources."""
        self.progress.started(self.queue.specs[trial.config["id"]])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial has done some rounds."""
        self.progress.result(self.queue.specs[trial.config["id"]], result["rounds"], result["last"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial is done."""
        spec, last = self.queue.specs[trial.config["id"]], trial.last_result
        self.queue.unstored.pop(spec.id, None)  # of a try before this sweep's training
        if not last["stored"]:
            self.queue.unstored[spec.id] = Unstored(last["reason"], kept=last["kept"])
        if last["finding"]:
            self.queue.findings.append(last["finding"])
        self.progress.ended(spec, last.get("final"), last["stored"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed for good."""
        spec = self.queue.specs[trial.config["id"]]
        self.queue.failures[spec.id] = why(trial.get_error())
        self.progress.ended(spec, None, False)


def slots(task: Task, have: Mapping[str, float]) -> int:
    """Trials that fit on the cluster at a time, at least one."""
    width = max(task.actors, 1)
    need = {"CPU": task.share.cpus * width if task.actors else 1.0, "GPU": task.share.gpus * width}
    return max(
        1, min(int(have.get(kind, 0.0) / amount + 1e-9) for kind, amount in need.items() if amount)
    )


def sweep(
    queue: Queue,
    task: Task,
    progress: Progress,
    have: Mapping[str, float],
    at_once: int | None = None,
) -> None:
    """Run everything that is in the queue, on the Ray that is running; the final metrics are in
    ``queue.results`` by spec id, None for a run that failed for good. ``have`` are the cluster's
    resources, ``at_once`` bounds the trials that run together.
    """
    own = {"CPU": 1.0} | ({"GPU": task.share.gpus} if task.share.gpus else {})
    client = {"CPU": task.share.cpus} | ({"GPU": task.share.gpus} if task.share.gpus else {})
    bundles = [{}, *[client] * task.actors] if task.actors else [own]
    # Tune keeps one trial pending for a searcher of one's own. A trial that ends then takes the
    # pending one over and stops the actor that starts for it, so that with short trials a second
    # actor never comes up. As many pending trials as fit start all actors together.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots(task, have))
    # What Tune saves of a sweep is never read, so that it cannot be saved is no news; a full disk
    # is said elsewhere, in a line.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    trainable = tune.with_resources(
        tune.with_parameters(Trial, task=task), PlacementGroupFactory(bundles, strategy="PACK")
    )
    Tuner(
        trainable,
        tune_config=TuneConfig(
            search_alg=Generations(queue),
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=at_once,
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=str(task.checkpoints.parent),
            verbose=0,
            failure_config=FailureConfig(max_failures=RETRIES),
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            callbacks=[Watching(queue, progress)],
        ),
    ).fit()
