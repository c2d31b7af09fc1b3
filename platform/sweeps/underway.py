"""A run of its own while it trains: its checkpoint and its MLflow run are brought up to date every
few seconds, as in a sweep.

So a process that is killed loses a few seconds of rounds, and whoever opens MLflow sees how far the
run is.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from backstop.platform.contract import Record
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.results import drivers
from backstop.platform.results.log import Log
from backstop.platform.results.store import Store, is_new, open_experiment
from backstop.platform.results.sweeps import stop_runs
from backstop.platform.rounds.checkpoint import SAVE_INTERVAL_S, Checkpoint


class Underway:
    """What is kept of one experiment. A new store is opened when it is first needed, since to make
    one takes seconds.
    """

    def __init__(self, store: Store, name: str, driver: str, place: Path) -> None:
        """``name`` of the MLflow experiment; ``driver`` and ``place`` as :mod:`drivers` has them.
        Opens a store that exists.

        Raises BadInput for a store that cannot be used, before anything is trained.
        """
        self.store, self.name, self.driver, self.place = store, name, driver, place
        self.number = "" if is_new(store) else open_experiment(store, name)
        self.log: Log | None = None
        self.records: list[Record] = []
        self.due = time.perf_counter() + SAVE_INTERVAL_S

    def begin(self, experiment: Experiment, checkpoint: Checkpoint) -> None:
        """Take up the experiment where its checkpoint left off."""
        self.experiment, self.checkpoint = experiment, checkpoint
        self.records = experiment.resume(checkpoint)

    def add(self, record: Record) -> None:
        """Keep a record for the next time."""
        self.records.append(record)
        if self.log is not None:
            self.log.log(record)

    def now_and_then(self) -> None:
        """After a round: save and send what there is when it is time. A store that does not take it
        now is tried again later.
        """
        if time.perf_counter() < self.due:
            return
        self.save()
        with suppress(BadInput):  # said at the end, if it is so then
            self.open().flush(force=False)
        self.due = time.perf_counter() + SAVE_INTERVAL_S

    def save(self) -> str:
        """Save the checkpoint; why that was not possible, else empty."""
        try:
            self.checkpoint.save(self.experiment.saved(self.records))
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def open(self) -> Log:
        """The MLflow run, with all records so far. Raises BadInput where the store cannot be
        opened.
        """
        if self.log is None:
            self.number = self.number or open_experiment(self.store, self.name)
            log = Log(
                self.store,
                self.number,
                self.experiment.spec,
                origin=self.experiment.origin,
                driver=self.driver,
            )
            for record in self.records:
                log.log(record)
            self.log = log
        return self.log

    def failed(self, error: Exception) -> None:
        """Say in MLflow why the experiment ended, if it is there already."""
        if self.log is not None:
            self.log.fail(f"round {self.experiment.state.round}: {type(error).__name__}: {error}")

    def release(self) -> None:
        """Nobody works on the run any more: what is not finished is marked as KILLED."""
        if not self.number or stop_runs(self.store, self.number, self.driver):
            drivers.forget(self.place, self.driver)
