"""One run as it is written to MLflow: metrics and artifacts, round by round and at the end."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backstop.platform import loose
from backstop.platform.contract import Record
from backstop.platform.disk import remove_unfinished, write_atomically
from backstop.platform.results.tracking.dataset_inputs import dataset_input
from backstop.platform.results.tracking.description import TAG_LIMIT, run_params, run_tags
from backstop.platform.results.tracking.locations import local_path
from backstop.platform.results.tracking.store import (
    Store,
    check_still_there,
    client_class,
    mlflow_client,
    one_line,
    search_runs,
)
from backstop.platform.results.tracking.titles import run_title
from backstop.platform.rounds import costs
from backstop.platform.rounds.finals import comparable
from backstop.platform.rounds.origin import Origin, of_tags
from backstop.platform.specs.spec import Spec, loose_names, spec_title, spec_to_json, validate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun
    from torch import Tensor

Point = tuple[str, float, int]  # metric, value, round

TOTALS = ("time/total_", "memory/peak_")
MODEL = "model.safetensors"  # artifact
REFUSED = "BAD_REQUEST"  # MLflow's word where its database takes a row not twice
DISSENT = "dissent"  # kind of a run whose figures are not those of a finished run of its spec
TRACE = "failure.txt"  # the artifact that holds what a failed run raised
DRIVER = "backstop.driver"  # the tag that says who works on a run
# seconds without a try after a failed one, so that a dead server does not slow training down
PAUSE = 30.0


class Log:
    """The MLflow run of one experiment. Nothing is sent before :meth:`flush`.

    A finished run is never written to. Where another process has finished the same spec, the
    figures are compared, and what differs is kept as a run of its own that no leaderboard reads.
    """

    def __init__(
        self,
        store: Store,
        experiment_id: str,
        spec: Spec,
        *,
        origin: Origin,
        space: str = "",
        parent: str | None = None,
        driver: str = "",  # who works on it
        title: str = "",  # the run's name for people; else what tells it from any other
    ) -> None:
        self.store = store
        self.driver = driver
        self.title = title or run_title(spec)
        self.experiment_id = experiment_id
        self.spec = validate(spec)
        self.run_id: str | None = None
        self.error = ""  # why the last try to send failed
        self.finding = ""  # how a run of the same spec, finished elsewhere, differs from this one
        self._origin = origin
        self._tags = run_tags(
            spec,
            space=space,
            origin=origin,
            parent=parent,
        )
        self._tags |= {DRIVER: driver} if driver else {}
        self._start = 0
        self._artifact_uri = ""
        self._status = ""
        self._finished: StoredRun | None = None  # a finished run of the spec that is not this one
        self._params: dict[str, str] = run_params(spec)  # those that are not stored yet
        self._dataset_sent = False
        self._metrics: list[Point] = []
        self._sent = 0  # of the metrics
        self._costs: dict[str, float] = {}
        self._step = 0
        self._retry_at = 0.0

    def log(self, record: Record) -> None:
        """Keep a round's metrics and costs for the next flush. NaN and infinity are not numbers to
        store: they are dropped.
        """
        self._step = max(self._step, record.round)
        self._metrics += _points(record.metrics, record.round)
        self._metrics += _points(record.costs, record.round)
        self._costs = costs.add(self._costs, record.costs)

    def flush(self, *, force: bool = True) -> bool:
        """Send what is kept, with one call. False when the store cannot be reached; then everything
        is kept.

        With ``force=False`` nothing is tried for a while after a failure.
        """
        if not force and time.monotonic() < self._retry_at:
            return False
        return self._try(self._send)

    def finish(
        self,
        final: Mapping[str, float],
        tensors: Mapping[str, Tensor] | None = None,
        files: Mapping[str, str | bytes] | None = None,
    ) -> bool:
        """Log the finals once, store spec.json, the final model as safetensors and further files,
        and set FINISHED.

        True when all of it is stored, here or in a finished run of the same spec; ``finding`` says
        how that one differs. After False it may be called again, in this process or a later one.
        """
        contents = self._artifacts(tensors, files or {})

        def complete() -> None:
            if self._status == "FINISHED":  # by an earlier call
                return
            if self._send_finals(final):
                self._deposit(contents)
                self._client.set_terminated(self._id(), "FINISHED")
                self._status = "FINISHED"

        return self._try(complete)

    def _send_finals(self, final: Mapping[str, float]) -> bool:
        """Send the figures of the whole run; False where a finished run of the spec has the same
        ones, which is then the one to keep.
        """
        points = _points(final, self._step)
        points += _points(costs.totals(self._costs), self._step)
        self._send(points)
        if self._finished is None or self._separate:
            return True
        if not self._dissents(self._finished, final):
            return False
        self._send(points)
        return True

    @property
    def _client(self) -> MlflowClient:
        return mlflow_client(self.store.uri)

    def _artifacts(
        self,
        tensors: Mapping[str, Tensor] | None,
        files: Mapping[str, str | bytes],
    ) -> dict[str, bytes]:
        """File name → content."""
        given = {"spec.json": _spec_file(self.spec), **files}
        given |= loose.texts_of(loose_names(self.spec))
        contents = {
            name: content.encode() if isinstance(content, str) else content
            for name, content in given.items()
        }
        if tensors is not None:
            contents[MODEL] = model_file(tensors)
        return contents

    def fail(self, message: str, trace: str = "") -> bool:
        """Send what is kept, say why the run failed, and set FAILED; not on a finished run.

        The trace of what was raised becomes an artifact.
        """

        def complete() -> None:
            self._send()
            if self._status != "FINISHED" and self._finished is None:
                run_id = self._id()
                self._client.set_tag(run_id, "backstop.error", message[:TAG_LIMIT])
                self._client.set_terminated(run_id, "FAILED")
                if trace:
                    self._deposit({TRACE: trace.encode()})

        return self._try(complete)

    def _try(self, action: Callable[[], None]) -> bool:
        client_class()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check_still_there(self.store)
                action()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if _is_our_mistake(error):
                raise
            self.error = one_line(error)
            self._retry_at = time.monotonic() + PAUSE
            return False
        self.error, self._retry_at = "", 0.0
        return True

    def _begin(self, stored: Sequence[StoredRun]) -> None:
        """Go on with an unfinished run of the spec and of the same origin, or make one.

        A run of another origin is not gone on with: MLflow keeps the larger of two values of a
        round.
        """
        run = self._begun(stored) or self._create()
        self._write_to(run)
        self._leave_out(run.data.params)
        self._dataset_sent = bool(run.inputs and run.inputs.dataset_inputs)
        self.run_id = str(run.info.run_id)

    def _id(self) -> str:
        """The id of the run that :meth:`_send` has begun or found."""
        assert self.run_id is not None
        return self.run_id

    def _leave_out(self, stored: Mapping[str, str]) -> None:
        """Send none of these parameters, which are immutable: only those that are missing."""
        for key in stored:
            self._params.pop(key, None)

    def _begun(self, stored: Sequence[StoredRun]) -> StoredRun | None:
        """The run that an earlier process has begun, taken up; None without one."""
        made = of_tags(self._tags)
        for run in stored:
            if of_tags(run.data.tags) == made:
                self._take_up(run)
                return run
        return None

    def _take_up(self, run: StoredRun) -> None:
        run_id = run.info.run_id
        if run.info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
        if self.driver:
            self._client.set_tag(run_id, DRIVER, self.driver)

    def _create(self) -> StoredRun:
        return self._client.create_run(
            self.experiment_id,
            tags=self._tags,
            run_name=self.title,
        )

    def _write_to(self, run: StoredRun) -> None:
        self._start = run.info.start_time
        self._artifact_uri = run.info.artifact_uri
        self._status = "RUNNING"

    def _stored(self) -> list[StoredRun]:
        """The spec's runs in the experiment, those that count, the oldest first."""
        condition = f"tags.`backstop.id` = '{self.spec.id}' AND tags.`backstop.kind` = 'trial'"
        return list(search_runs(self.store, self.experiment_id, condition))

    @property
    def _separate(self) -> bool:
        """Whether what is sent now goes to a run beside a finished one."""
        return self._tags["backstop.kind"] == DISSENT

    def _send(self, more: Sequence[Point] = ()) -> None:
        """Send what is not sent yet, and ``more``; nothing where another process has finished the
        spec.
        """
        if not self._separate:
            stored = self._stored()
            if self._is_finished(stored):
                return
            if self.run_id is None:
                self._begin(stored)
        run_id = self._id()
        points = [*self._metrics[self._sent :], *more]
        if not self._dataset_sent:
            self._send_dataset(run_id)
        if points or self._params:
            self._send_batch(run_id, points)

    def _send_dataset(self, run_id: str) -> None:
        """Name what the run has read; sent twice it is stored once."""
        read = dataset_input(self.spec, self._origin)
        if read is not None:
            _insist(lambda: self._client.log_inputs(run_id, [read]))
        self._dataset_sent = True

    def _is_finished(self, stored: Sequence[StoredRun]) -> bool:
        """Whether the spec has a finished run, whoever made it; from now on the oldest of them is
        the one to speak of.
        """
        finished = next((run for run in stored if run.info.status == "FINISHED"), None)
        if finished is None:
            return False
        started = self.run_id
        self._finished = finished
        self.run_id = str(finished.info.run_id)
        # ours is of another origin, and nobody will go on with it
        if started not in (None, self.run_id):
            self._client.set_terminated(started, "KILLED")
        return True

    def _send_batch(self, run_id: str, points: Sequence[Point]) -> None:
        """Send points and the parameters that are not stored yet, with one call."""
        from mlflow.entities import Metric, Param

        count = len(self._metrics)
        metrics = [Metric(name, value, self._start + step, step) for name, value, step in points]
        params = [Param(key, value) for key, value in self._params.items()]
        _insist(lambda: self._client.log_batch(run_id, metrics=metrics, params=params))
        self._sent = count
        self._params = {}

    def _dissents(self, stored: StoredRun, final: Mapping[str, float]) -> bool:
        """Say what differs from a finished run of the same spec. Whether figures do: these get a
        run of their own.
        """
        figures = _different_figures(stored.data.metrics, final)
        origin = self._other_origin(stored)
        if figures or origin:
            self.finding = self._difference(figures, origin)
        if figures:
            self._write_beside(stored)
        return bool(figures)

    def _other_origin(self, stored: StoredRun) -> str:
        """What another run was made with and this one was not, in words, as far as it is known."""
        made = of_tags(stored.data.tags)
        if not made.data:
            return ""
        return made.difference(self._origin)

    def _difference(self, figures: Sequence[str], origin: str) -> str:
        """How a finished run of the spec differs from this one, in words."""
        spec = self.spec
        run = f"run {spec.id[:12]} ({spec_title(spec)}, seed {spec.seed})"
        result = "the same figures"
        if figures:
            result = f"other figures: {'; '.join(figures[:3])}"
        clauses = [f"{run} was finished by another process with {result}"]
        if origin:
            clauses.append(f"that one was made with {origin}")
        if figures:
            clauses.append("the first one stays, these are kept as a run of kind 'dissent'")
        return "; ".join(clauses)

    def _write_beside(self, stored: StoredRun) -> None:
        """Begin a run of kind :data:`DISSENT` that names the finished one."""
        dissents = str(stored.info.run_id)
        self._tags |= {"backstop.kind": DISSENT, "backstop.dissents": dissents}
        created = self._create()
        self.run_id = str(created.info.run_id)
        self._write_to(created)
        self._params = run_params(self.spec)
        self._dataset_sent = False
        self._sent = 0

    def _deposit(self, contents: Mapping[str, bytes]) -> None:
        """Store artifacts: straight into a folder of this machine, through MLflow otherwise."""
        folder = local_path(self._artifact_uri)
        if folder is not None:
            _fill_artifacts(folder, contents)
            return
        with _outbox(self._id()) as outbox:
            _fill(outbox, contents)
            with _naming_artifacts(self._artifact_uri):
                self._client.log_artifacts(self._id(), str(outbox))


def _insist(send: Callable[[], object]) -> None:
    """Send something that is stored once. Of two processes that send the same for the first time at
    once, MLflow refuses one, which finds it there at once.
    """
    from mlflow.exceptions import MlflowException

    try:
        send()
    except MlflowException as error:
        if error.error_code != REFUSED:
            raise
        send()


def _points(values: Mapping[str, float], step: int) -> list[Point]:
    """The figures of a round that are finite."""
    points = []
    for name, value in values.items():
        if math.isfinite(value):
            points.append((name, float(value), step))
    return points


def _is_our_mistake(error: Exception) -> bool:
    """Whether MLflow refused what was sent, which waiting does not mend."""
    return getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE"


def _spec_file(spec: Spec) -> str:
    """The text of spec.json."""
    document = {"id": spec.id, "spec": spec_to_json(spec)}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def model_file(tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a .safetensors file."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content: bytes = save(plain)
    return content


def _different_figures(stored: Mapping[str, float], final: Mapping[str, float]) -> list[str]:
    """The final figures in which a stored run differs from this one, in words."""
    theirs = {key: value for key, value in stored.items() if key.startswith("final/")}
    ours = {key: float(value) for key, value in final.items() if math.isfinite(value)}
    differences = []
    for key in comparable(theirs, ours):
        there, here = theirs.get(key), ours.get(key)
        if there != here:
            differences.append(f"{key} {there!r} there, {here!r} here")
    return differences


@contextmanager
def _outbox(run_id: str) -> Iterator[Path]:
    """A temporary folder from which a run's artifacts are sent. It has the run's name: what is left
    where a process is killed is removed by the one on this machine that finishes the run.
    """
    folder = Path(tempfile.gettempdir()) / f"backstop-{run_id}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill_artifacts(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Fill a run's folder. The error has the same words for all runs: their reasons are
    gathered.
    """
    try:
        _fill(folder, contents)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"artifacts in {folder.parents[1]}: {reason}") from error


@contextmanager
def _naming_artifacts(uri: str) -> Iterator[None]:
    """What an object store's own library raises becomes an OSError: the run can be sent later."""
    client_class()
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError):
        raise
    except Exception as error:
        raise OSError(f"artifacts in {uri}: {one_line(error)}") from error


def _fill(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder / name)
        write_atomically(folder / name, content)
