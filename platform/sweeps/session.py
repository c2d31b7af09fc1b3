"""One experiment on its way into the store: restore, rounds, final figures, log, drop.

Whatever trains goes this way: a run of its own with one session, a sweep with one for each trial.
What a sweep could not store is sent the last part of the way, from :func:`store_run` on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from traceback import format_exception
from typing import TYPE_CHECKING, NamedTuple

from backstop.platform.contract import Record
from backstop.platform.params import BadInput
from backstop.platform.results.tracking.log import Log
from backstop.platform.results.tracking.scribe import Here, RunLog, Scribe
from backstop.platform.results.tracking.store import Store
from backstop.platform.results.tracking.titles import ALONE, run_title
from backstop.platform.rounds import costs
from backstop.platform.rounds.checkpoint import SAVE_INTERVAL_S, Checkpoint, Checkpointed
from backstop.platform.rounds.finals import final
from backstop.platform.rounds.origin import Origin
from backstop.platform.specs.spec import Spec
from backstop.platform.storage import Location
from backstop.platform.training.stage_errors import failure_line

if TYPE_CHECKING:
    from torch import Tensor

    from backstop.platform.experiment import Experiment

LOGS = "logs"  # in the local folder of the store


class Destination(NamedTuple):
    """Where runs go, and who sends them."""

    store: Store
    experiment: str  # MLflow experiment id
    checkpoints: Location  # what is not stored yet
    driver: str = ""  # as :mod:`drivers` has it
    space: str = ""  # the sweep's search space
    parent: str | None = None  # MLflow run id of the sweep
    varied: frozenset[str] = ALONE  # parameters that tell the sweep's runs apart
    keeps_models: bool = True  # whether a finished run's final model is stored
    home: Path = Path()  # what belongs to one machine: logs, and what Ray Tune writes
    scribe: Scribe = Here()  # who writes to the store

    @property
    def logs(self) -> Path:
        """Where trials that failed say why at length."""
        return self.home / LOGS

    def open_log(
        self,
        spec: Spec,
        origin: Origin,
        records: Iterable[Record],
    ) -> RunLog:
        """The MLflow run of a spec, with its records so far; nothing is sent yet.

        What an earlier process has sent already is the same and is stored once.
        """
        make = partial(
            Log,
            self.store,
            self.experiment,
            spec,
            origin=origin,
            space=self.space,
            parent=self.parent,
            driver=self.driver,
            title=run_title(spec, self.varied),
        )
        log = self.scribe.open_log(make)
        for record in records:
            log.log(record)
        return log


class Outcome(NamedTuple):
    """What became of a run whose rounds are all done."""

    finals: dict[str, float]
    stored: bool
    run_id: str | None = None  # its MLflow id
    reason: str = ""  # why it is not stored
    lost: str = ""  # why it could not be kept in its checkpoint either
    finding: str = ""  # how a finished run of the same spec differs from it
    costs: Mapping[str, float] = {}  # time/total_…_s, memory/peak_…_mib

    @property
    def kept(self) -> bool:
        """Whether it can be sent later, without training again."""
        return not self.stored and not self.lost


def store_run(
    log: RunLog,
    checkpoint: Checkpoint,
    records: Sequence[Record],
    model: Mapping[str, Tensor] | None,
) -> Outcome:
    """Send a run whose rounds are all done; its checkpoint is dropped once all of it is stored."""
    finals = final(records)
    stored = log.finish(finals, model)
    if stored:
        checkpoint.drop()
    return Outcome(
        finals,
        stored,
        log.run_id,
        reason=log.error,
        finding=log.finding,
        costs=_costs_of(records),
    )


def _costs_of(records: Iterable[Record]) -> dict[str, float]:
    """What all rounds cost together."""
    spent: dict[str, float] = {}
    for record in records:
        spent = costs.add(spent, record.costs)
    return costs.totals(spent)


class Session:
    """One experiment, taken up where its checkpoint left off.

    A killed process loses a few seconds of rounds, and MLflow shows how far the run is.
    """

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Location,
        destination: Callable[[], Destination],
    ) -> None:
        """``destination`` is asked for when something is first sent: to make a store takes seconds.

        It raises BadInput where the store cannot be opened.
        """
        self.experiment = experiment
        self.checkpoint = Checkpoint(checkpoints, experiment.spec.id)
        self.checkpointed = Checkpointed(experiment, self.checkpoint)
        self.destination = destination
        self.log: RunLog | None = None

    @property
    def spec(self) -> Spec:
        """What is run."""
        return self.experiment.spec

    @property
    def records(self) -> list[Record]:
        """All records so far, those of earlier processes among them."""
        return self.checkpointed.records

    @property
    def done(self) -> bool:
        """Whether the last round is done."""
        return self.checkpointed.done

    def rounds(self) -> Iterator[Record]:
        """All rounds that are left: those that are evaluated."""
        while not self.done:
            yield from self.next_rounds()

    def next_rounds(self) -> Iterator[Record]:
        """Rounds for a few seconds, those that are evaluated; then what there is, saved, and sent
        unless :meth:`finish` is next.

        What a round raises is written to the MLflow run, where it is there already.
        """
        try:
            for record in self.checkpointed.rounds(SAVE_INTERVAL_S):
                if self.log is not None:
                    self.log.log(record)
                yield record
        except Exception as error:
            self._report_failure(error)
            raise
        self.save()  # after the last round too: to store a run takes seconds
        if not self.done:
            self._send()

    def _report_failure(self, error: Exception) -> None:
        if self.log is not None:
            line = failure_line(error, self.experiment.state.round)
            self.log.fail(line, "".join(format_exception(error)))

    def _send(self) -> None:
        """Send what there is; a store that does not take it now is tried again later."""
        with suppress(BadInput):  # said at the end, if it is so then
            self.open_log().flush(force=False)

    def open_log(self) -> RunLog:
        """The MLflow run. Raises BadInput where the store cannot be opened."""
        if self.log is None:
            origin = self.experiment.origin
            self.log = self.destination().open_log(self.spec, origin, self.records)
        return self.log

    def save(self, *, patient: bool = False) -> str:
        """Save the checkpoint; why that was not possible, else empty.

        A disk that is full costs what a kill would lose, not the run. With ``patient`` an object
        store that is away is waited for.
        """
        try:
            self.checkpointed.save(patient=patient)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def finish(self) -> Outcome:
        """Store the run, or keep it in its checkpoint, from where it can be sent later."""
        try:
            log = self.open_log()
            model = self.experiment.model if self.destination().keeps_models else None
        except BadInput as error:
            outcome = Outcome(
                final(self.records),
                stored=False,
                reason=str(error),
                costs=_costs_of(self.records),
            )
        else:
            outcome = store_run(log, self.checkpoint, self.records, model)
        if outcome.stored:
            return outcome
        # what neither store has is all there is of the run
        return outcome._replace(lost=self.save(patient=True))
