"""MLflow in and out: one parent run per sweep, one run per experiment, found again by the tag ``backstop.id``.

Metrics are buffered and sent with one call. A point's time stamp is a function of its step, so that sending it twice stores
it once. A tracking server that goes away stops nothing: what could not be sent stays in the checkpoint's records.

This is the only file that imports mlflow, and it does so when it must (the import takes seconds).
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname, urlopen

from backstop import __version__
from backstop.platform import costs, drivers, specs
from backstop.platform.contract import Part, Record, Spec
from backstop.platform.origin import Origin, of_tags
from backstop.platform.params import BadInput, nearest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Param
    from mlflow.entities import Run as Stored
    from torch import Tensor

MAGIC = b"SQLite format 3\x00"  # the first bytes of a database file, sqlite.org/fileformat.html section 1.3.1
ARTIFACTS = "mlartifacts"  # the folder of the artifacts, beside the database
TOTALS = ("time/total_", "memory/peak_")
DISSENT = "dissent"  # kind of a run whose figures are not those of a finished run of its spec
DRIVER = "backstop.driver"  # the tag that says who works on a run
TAG_LIMIT = 8000  # MLflow cuts longer tag values off
PLAN = "backstop.plan"  # tag of a sweep's run: how many tags PLAN.0, PLAN.1 … hold its plan
LINE_LIMIT = 400  # characters that say which run is meant
TAGS_AT_ONCE = 100  # MLflow takes no more in one request
PAGE = 1000  # runs per request
ROOM = 2**21  # bytes: MLflow's empty tables take 0.9 MB, and as much again while they are made
LITTLE = 2**18  # bytes that a database in use should find free: a run's rows, and the journal beside them
PAUSE = 30.0  # seconds without a try after a failed one, so that a dead server does not slow training down
TIMEOUT = 5.0  # seconds that the check at the start waits for a server
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # MLflow's own defaults let one call hang for minutes when the server is gone; the buffer makes waiting needless.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class Store(NamedTuple):
    """Where runs are kept: MLflow's tracking URI, and the folder of the artifacts where we choose it (else empty)."""

    uri: str
    artifacts: str


class Interrupted(NamedTuple):
    """How many RUNNING sweeps, and runs of single specs, nobody works on any more."""

    sweeps: int
    runs: int


class Run(NamedTuple):
    """One experiment as MLflow holds it."""

    id: str
    run_id: str
    spec: Mapping[str, Any]
    metrics: Mapping[str, float]  # final/…
    costs: Mapping[str, float]  # time/total_…_s, memory/peak_…_mib
    fingerprint: str
    status: str
    curves: Mapping[str, Sequence[tuple[int, float]]] = {}  # metric → (round, value), filled by :func:`curves`
    data: str = ""  # digest of the data it has read
    code: Mapping[str, str] = {}  # "defense median" → digest of the plug-in's file

    @property
    def origin(self) -> Origin:
        """What besides the spec it was made of."""
        return Origin(self.fingerprint, self.data, self.code)


def store(folder: Path) -> Store:
    """The store in use: ``$MLFLOW_TRACKING_URI``, else a database in the folder. Paths become absolute."""
    root = folder.expanduser().resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return _beside(root / "mlflow.db")
    if uri.startswith(("sqlite:", "sqlite+")):
        name = re.sub(r"^sqlite(\+\w+)?:///", "", uri)
        if name in ("", ":memory:") or name == uri:
            raise BadInput(
                f"MLFLOW_TRACKING_URI={uri!r}: runs are written by several processes; a file is needed, such as sqlite:////data/mlflow.db"
            )
        if "?" in name:
            raise BadInput(f"MLFLOW_TRACKING_URI={uri!r}: options after a ? are not allowed; a ? that belongs to the path is written %3F")
        return _beside(Path(unquote(name)).resolve())
    if uri.startswith(("http://", "https://")):
        return Store(uri.rstrip("/"), "")
    if "://" not in uri or uri.startswith("file:"):
        raise BadInput(
            f"MLFLOW_TRACKING_URI={uri!r} is a folder; MLflow needs http://host:port or a database such as sqlite:////data/mlflow.db"
        )
    return Store(uri, str(root / ARTIFACTS))


def _beside(file: Path) -> Store:
    """A database file with its artifacts beside it."""
    return Store(_address(file), str(file.parent / ARTIFACTS))


def _address(file: Path) -> str:
    """The URI of a database file. In a URI a ? begins the options and %41 is an A, so a path's own are quoted."""
    plain, quoted = str(file), str(file).replace("%", "%25").replace("?", "%3F")
    # Of a URI that begins with sqlite:/// MLflow makes the folder as if nothing in it were quoted.
    return f"sqlite:///{plain}" if plain == quoted else f"sqlite+pysqlite:///{quoted}"


def database(store: Store) -> Path | None:
    """The file of a sqlite store, else None."""
    return Path(unquote(store.uri.partition(":///")[2])) if store.uri.startswith("sqlite") else None


def is_new(store: Store) -> bool:
    """Whether the store is a database that does not exist yet."""
    file = database(store)
    return file is not None and _empty(file)


def reachable(store: Store, *, write: bool = True) -> None:
    """Check, without MLflow, that the store can be read, and written unless ``write`` is False. Raises BadInput with one
    line that says why not.
    """
    file = database(store)
    if file is not None:
        if write:
            _writable(file)
        if not _empty(file):
            _sound(file)
    elif store.uri.startswith(("http://", "https://")):
        try:
            with urlopen(f"{store.uri}/health", timeout=TIMEOUT):  # noqa: S310 -- the scheme is checked above
                pass
        except HTTPError as error:
            if error.code >= 500:
                raise BadInput(f"tracking server {store.uri} answers {error.code} {error.reason}; is MLflow healthy there?") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise BadInput(
                f"tracking server {store.uri} cannot be reached: {reason}; start it, or unset MLFLOW_TRACKING_URI to use a local file"
            ) from None


def _writable(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            with file.open("r+b"):
                pass
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".writable-"):  # sqlite also writes a journal beside the file
            pass
    except OSError as error:
        raise BadInput(f"store {file}: cannot be written: {error.strerror or error}") from None
    free, need = shutil.disk_usage(file.parent).free, ROOM if _empty(file) else LITTLE
    if free < need:
        raise BadInput(
            f"store {file}: the disk is full: {free // 1024} KiB are free and at least {need // 1024} KiB are needed;"
            " make room, or choose another --store"
        )


def read_only(store: Store) -> bool:
    """Whether the store is a database that can be read and not be written."""
    file = database(store)
    return file is not None and not _empty(file) and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


def _empty(file: Path) -> bool:
    return not file.exists() or file.stat().st_size == 0


def _sound(file: Path) -> None:
    wrong = BadInput(f"store {file}: is not a sound MLflow database; move it away or choose another --store")
    try:
        with file.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise wrong
        connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=TIMEOUT)
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            pages = connection.execute("PRAGMA page_count").fetchone()[0] * connection.execute("PRAGMA page_size").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):  # somebody is writing: that is a sound database
            return
        raise wrong from None
    except (sqlite3.Error, OSError):
        raise wrong from None
    if not {"experiments", "runs", "alembic_version"} <= tables or pages > file.stat().st_size:
        raise wrong


def settle(store: Store) -> str:
    """Mend the places of artifacts in a database that was moved or copied: MLflow keeps them as absolute paths, so that new
    artifacts would go where the store was before. What was mended, in a line; empty where there is nothing to mend.

    Raises BadInput where the artifacts were left behind: only their owner knows whether to move or to copy them.
    """
    file, here = database(store), Path(store.artifacts)
    if file is None or _empty(file):
        return ""
    try:
        with closing(sqlite3.connect(file, timeout=TIMEOUT)) as connection:
            moved = [
                (number, location.rpartition("/")[0], _address_of(here, location))
                for number, location in connection.execute("SELECT experiment_id, artifact_location FROM experiments")
                if (place := _local(location or "")) and place.parent.name == ARTIFACTS and place.parent != here
            ]
            if not moved:
                return ""
            before = [place for _, old, _ in moved if (place := _local(old))]
            for place in before:
                if not here.exists() and place.is_dir() and any(place.iterdir()):
                    raise BadInput(
                        f"store {file}: its artifacts are still in {place}; run: {shlex.join(['cp', '-r', str(place), str(here)])}"
                    )
            with connection:
                for number, old, new in moved:
                    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                        connection.execute(  # the names are this function's own
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608
                            f" WHERE experiment_id = ? AND substr({column}, 1, ?) = ?",
                            (new, len(old) + 1, number, len(old), old),
                        )
    except (sqlite3.Error, OSError) as error:
        raise BadInput(f"store {file}: {error}") from None
    return f"the store was moved or copied here from {before[-1].parent}; its artifacts are looked for in {here} from now on"


def _address_of(folder: Path, like: str) -> str:
    """A folder as the other location is written: as a URI or as a path."""
    return folder.as_uri() if like.startswith("file:") else str(folder)


def check_name(name: str) -> None:
    """BadInput for an experiment name that MLflow, a folder or a URL could not carry."""
    if not re.fullmatch(r"\w[\w .-]{0,99}", name) or name.endswith("."):
        raise BadInput(
            f"experiment name {name!r} is not allowed; up to 100 letters, digits, spaces and . _ -, the first one a letter, digit or _, the last no dot"
        )


def open_experiment(store: Store, name: str) -> str:
    """The experiment's MLflow id; the database and the experiment are made where they are missing.

    Any number of processes may call this at once. Raises BadInput when the store cannot be used.
    """
    check_name(name)
    file = database(store)
    if file is not None and _empty(file):
        _writable(file)
        _create(file, store.artifacts)
    with _refusing(store):
        client = _client(store.uri)
        found = client.get_experiment_by_name(name)
        if found is None:
            from mlflow.exceptions import MlflowException

            place = Path(store.artifacts, quote(name)).as_uri() if store.artifacts else None
            try:
                return str(client.create_experiment(name, artifact_location=place))
            except MlflowException:  # made by another process just now
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
    if found.lifecycle_stage != "active":
        raise BadInput(f"experiment {name!r} was deleted in MLflow; choose another name or run: {restoring(store, found.experiment_id)}")
    return str(found.experiment_id)


def restoring(store: Store, experiment_id: object) -> str:
    """The command line that brings a deleted experiment back."""
    words = ["mlflow", "experiments", "restore", "--experiment-id", str(experiment_id)]
    return f"MLFLOW_TRACKING_URI={shlex.quote(store.uri)} {shlex.join(words)}"


def _create(file: Path, artifacts: str) -> None:
    """Make MLflow's tables in a new file that appears at once and whole.

    Several processes that open a new database together would destroy it. MLflow's migrations make some 900 transactions:
    without waiting for the disk at each of them they take 2 s instead of 10. The file gets its name when it is on the disk.
    """
    with _alone(file.with_name(f"{file.name}.lock")):
        if not _empty(file):
            return
        import sqlalchemy

        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")

        def hasten(connection: Any, *_: object) -> None:
            if connection.execute("PRAGMA database_list").fetchone()[2] == str(Path(name).resolve()):
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("PRAGMA journal_mode=MEMORY")

        sqlalchemy.event.listen(sqlalchemy.Engine, "connect", hasten)
        try:
            with _refusing(Store(_address(file), artifacts)):
                from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

                made: Any = SqlAlchemyStore
                made(_address(Path(name)), artifacts).engine.dispose()
            os.fsync(handle)
            Path(name).chmod(0o644)  # mkstemp's files are private; a store may be shared like any other file
            Path(name).replace(file)
        finally:
            sqlalchemy.event.remove(sqlalchemy.Engine, "connect", hasten)
            os.close(handle)
            Path(name).unlink(missing_ok=True)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # given back when the file is closed, and by the system when the process dies
        yield


@lru_cache
def _client_class() -> type[MlflowClient]:
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It logs a trace of every error that it then raises, and what is raised becomes one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return MlflowClient


@lru_cache(maxsize=8)
def _client(uri: str) -> MlflowClient:
    return _client_class()(uri)


@contextmanager
def _refusing(store: Store) -> Iterator[None]:
    """Errors of the store become BadInput: one line."""
    _client_class()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise BadInput(f"tracking store {store.uri}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """The line of an error that says what happened: SQLAlchemy's first one may only say when it was found out."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if not line.startswith("(raised as a result of")), lines[0])[:300]


def _search(store: Store, experiment_id: str, condition: str) -> Iterator[Stored]:
    """All runs under the condition, the oldest first, page by page."""
    client, token = _client(store.uri), None
    while True:
        page = client.search_runs([experiment_id], condition, max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def parent(store: Store, experiment_id: str, space: str, *, note: str = "", driver: str = "") -> str:
    """The MLflow run id of the sweep's parent run, made when it is missing, and RUNNING from now on where it has a driver."""
    with _refusing(store):
        condition = f"tags.`backstop.kind` = 'sweep' AND tags.`backstop.space` = '{_literal(space)}'"
        for run in _search(store, experiment_id, condition):
            if driver:
                _client(store.uri).update_run(run.info.run_id, status="RUNNING")
                _client(store.uri).set_tag(run.info.run_id, DRIVER, driver)
            return str(run.info.run_id)
        tags = {
            "backstop.kind": "sweep",
            "backstop.space": space,
            "backstop.version": __version__,
            "mlflow.source.name": "backstop",
            **({"mlflow.note.content": note[:TAG_LIMIT]} if note else {}),
            **({DRIVER: driver} if driver else {}),
        }
        return str(_client(store.uri).create_run(experiment_id, tags=tags, run_name=f"sweep {space}").info.run_id)


def plan(store: Store, run_id: str, planned: Mapping[str, str]) -> None:
    """Write into a sweep's parent run what it is about to do: spec id → the run in words.

    It takes the place of an earlier plan. It stands in tags, which need no artifact folder.
    """
    from mlflow.entities import RunTag

    pieces = [""]
    for spec_id, words in sorted(planned.items()):
        line = f"{spec_id} {words[:LINE_LIMIT]}\n"
        if len(pieces[-1]) + len(line) > TAG_LIMIT:
            pieces.append("")
        pieces[-1] += line
    found = [RunTag(f"{PLAN}.{place}", piece) for place, piece in enumerate(pieces)]
    with _refusing(store):
        for first in range(0, len(found), TAGS_AT_ONCE):
            _client(store.uri).log_batch(run_id, tags=found[first : first + TAGS_AT_ONCE])
        _client(store.uri).set_tag(run_id, PLAN, str(len(found)))


def planned(store: Store, experiment: str) -> dict[str, str]:
    """Spec id → the run in words, of all that the experiment's sweeps last set out to do."""
    listed: dict[str, str] = {}
    with _refusing(store):
        found = _client(store.uri).get_experiment_by_name(experiment)
        if found is None:
            return {}
        for run in _search(store, found.experiment_id, "tags.`backstop.kind` = 'sweep'"):
            labels = run.data.tags
            for place in range(int(labels.get(PLAN, "0"))):
                lines = labels.get(f"{PLAN}.{place}", "").splitlines()
                listed |= {spec_id: words for spec_id, _, words in (line.partition(" ") for line in lines)}
    return listed


def close(store: Store, run_id: str, status: str) -> bool:
    """Set a run's status (FINISHED, FAILED, KILLED); False when the store cannot be reached."""
    try:
        with _refusing(store):
            _still_there(store)
            _client(store.uri).set_terminated(run_id, status)
    except BadInput:
        return False
    return True


def home(store: Store, folder: Path) -> Path:
    """Where drivers are known: beside the database that they write to, else in the ``--store`` folder."""
    file = database(store)
    return file.parent if file is not None else folder.expanduser().resolve()


def stop(store: Store, experiment_id: str, driver: str) -> bool:
    """Mark what a driver leaves unfinished as KILLED; False when the store cannot be reached."""
    try:
        with _refusing(store):
            _still_there(store)
            condition = f"attributes.status = 'RUNNING' AND tags.`{DRIVER}` = '{driver}'"
            for run in list(_search(store, experiment_id, condition)):
                _client(store.uri).set_terminated(run.info.run_id, "KILLED")
    except BadInput:
        return False
    return True


def interrupted(store: Store, folder: Path, experiment: str | None = None) -> Interrupted:
    """What, in one MLflow experiment or in all, has lost its driver to a kill since somebody looked last. It is marked as
    KILLED where the store can be written; the same command takes it up again.
    """
    place, client = home(store, folder), _client(store.uri)
    with _refusing(store):
        where = [item.experiment_id for item in client.search_experiments() if experiment in (None, item.name)]
        running = [run for number in where for run in _search(store, number, "attributes.status = 'RUNNING'")]
        known = {run.info.run_id: run.data.tags.get(DRIVER, "") for run in running}
        dead = {name for name in set(known.values()) - {""} if _died(store, place, name)}
        lost = [run for run in running if known[run.info.run_id] in dead]
    if not read_only(store):
        with suppress(BadInput), _refusing(store):  # a full disk: whoever looks after that marks them
            for run in lost:
                client.set_terminated(run.info.run_id, "KILLED")
            for name in dead:
                drivers.forget(place, name)
    sweeps = sum(run.data.tags.get("backstop.kind") == "sweep" for run in lost)
    return Interrupted(sweeps, len(lost) - sweeps)


def _died(store: Store, place: Path, name: str) -> bool:
    """A driver that a database's own folder does not know has ended; one on a server may work beside another folder."""
    gone = drivers.gone(place, name)
    return database(store) is not None if gone is None else gone


def _literal(text: str) -> str:
    """Text for a filter: MLflow's filter language has no escape for quotes."""
    if "'" in text:
        raise BadInput(f"{text!r} holds a quote, which MLflow cannot search for")
    return text


def plain(value: object) -> str:
    """A parameter's value as MLflow shows it: plain decimal text, ``true``, ``false``, ``none``."""
    return {None: "none", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)


def params(spec: Spec) -> dict[str, str]:
    """The parameters that a run logs: one plain scalar per key, so that each makes an axis in MLflow's charts.

    ``attack.strength`` is left out where no stage has one. A second stage of the same name gets the prefix ``….2``.
    """
    spec = specs.validate(spec)
    found = {
        "dataset.name": spec.dataset.name,
        "model.name": spec.model.name,
        "optimizer.name": spec.optimizer.name,
        "attack.name": specs.text(spec.attack, "attack"),
        "defense.name": specs.text(spec.defense, "defense"),
        "seed": str(spec.seed),
    }
    strength = specs.strength(spec)
    if strength is not None:
        found["attack.strength"] = plain(strength)
    for role in ("dataset", "model", "optimizer"):
        found |= {f"{role}.{key}": plain(value) for key, value in getattr(spec, role).params.items()}
    for role in ("attack", "defense"):
        chain: tuple[Part, ...] = getattr(spec, role)
        names = [stage.name for stage in chain]
        for place, stage in enumerate(chain):
            earlier = names[:place].count(stage.name)
            prefix = f"{role}.{stage.name}" + (f".{earlier + 1}" if earlier else "")
            found |= {f"{prefix}.{key}": plain(value) for key, value in stage.params.items()}
    return found | {f"fl.{name}": plain(getattr(spec, name)) for name in specs.scalars() if name != "seed"}


def command(spec: Spec) -> str:
    """The command line that runs one spec again."""
    options = [(role, str(getattr(spec, role))) for role in ("dataset", "model", "optimizer")]
    options += [(role, specs.text(getattr(spec, role), role)) for role in ("attack", "defense")]
    options += [(name.replace("_", "-"), plain(getattr(spec, name))) for name in specs.scalars()]
    return "backstop run " + " ".join(f"--{name} '{value}'" if "(" in value else f"--{name} {value}" for name, value in options)


def tags(spec: Spec, *, space: str, origin: Origin, parent: str | None) -> dict[str, str]:
    """The tags that a run carries."""
    spec = specs.validate(spec)
    attack, defense = specs.text(spec.attack, "attack"), specs.text(spec.defense, "defense")
    document = json.dumps(specs.to_json(spec), sort_keys=True, separators=(",", ":"), allow_nan=False)
    note = f"**{attack}**{specs.DORMANT if spec.dormant else ''} against **{defense}** on {spec.dataset.name} ({spec.model.name}), seed {spec.seed}.\n\n```\n{command(spec)}\n```\n"
    found = {
        "backstop.kind": "trial",
        "backstop.id": spec.id,
        "backstop.space": space,
        "backstop.cell": specs.title(spec),
        "backstop.version": __version__,
        **origin.tags,
        "backstop.spec": document,
        "mlflow.note.content": note,
        "mlflow.source.name": "backstop",
    }
    if parent:
        found["mlflow.parentRunId"] = parent
    return {key: value for key, value in found.items() if 0 < len(value) <= TAG_LIMIT}


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
    ) -> None:
        self.store = store
        self.driver = driver
        self.experiment_id = experiment_id
        self.spec = specs.validate(spec)
        self.run_id: str | None = None
        self.error = ""  # why the last try to send failed
        self.finding = ""  # how a run of the same spec, finished elsewhere, differs from this one
        self._origin = origin
        self._tags = tags(spec, space=space, origin=origin, parent=parent)
        self._tags |= {DRIVER: driver} if driver else {}
        self._start = 0
        self._place = ""
        self._status = ""
        self._finished: Stored | None = None  # a finished run of the spec that is not this one
        self._params: dict[str, str] = params(spec)  # those that are not stored yet
        self._metrics: list[tuple[str, float, int]] = []
        self._sent = 0  # of the metrics
        self._costs: dict[str, float] = {}
        self._step = 0
        self._again = 0.0

    def log(self, record: Record) -> None:
        """Keep a round's metrics and costs for the next flush. NaN and infinity are not numbers to store: they are dropped."""
        self._step = max(self._step, record.round)
        for name, value in (*record.metrics.items(), *record.costs.items()):
            if math.isfinite(value):
                self._metrics.append((name, float(value), record.round))
        self._costs = costs.add(self._costs, record.costs)

    def flush(self, *, force: bool = True) -> bool:
        """Send what is kept, with one call. False when the store cannot be reached; then everything is kept.

        With ``force=False`` nothing is tried for a while after a failure.
        """
        if not force and time.monotonic() < self._again:
            return False
        return self._try(self._send)

    def finish(
        self, final: Mapping[str, float], tensors: Mapping[str, Tensor] | None = None, files: Mapping[str, str] | None = None
    ) -> bool:
        """Log the finals once, store spec.json, the final model as safetensors and further text files, and set FINISHED.

        True when all of it is stored, here or in a finished run of the same spec; ``finding`` says
        how that one differs. After False it may be called again, in this process or a later one.
        """
        points = [(name, float(value), self._step) for name, value in final.items() if math.isfinite(value)]
        points += [(name, value, self._step) for name, value in costs.totals(self._costs).items()]
        contents: dict[str, str | bytes] = {
            "spec.json": json.dumps({"id": self.spec.id, "spec": specs.to_json(self.spec)}, indent=2, sort_keys=True) + "\n",
            **(files or {}),
        }
        if tensors is not None:
            from safetensors.torch import save

            contents["model.safetensors"] = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})

        def complete() -> None:
            if self._status == "FINISHED":  # by an earlier call
                return
            self._send(points)
            if self._finished is not None and not self._separate:
                if not self._dissents(self._finished, final):
                    return
                self._send(points)
            self._deposit(contents)
            _client(self.store.uri).set_terminated(self._id(), "FINISHED")
            self._status = "FINISHED"

        return self._try(complete)

    def fail(self, message: str) -> bool:
        """Send what is kept, say why the run failed, and set FAILED. A finished run stays finished."""

        def complete() -> None:
            self._send()
            if self._status != "FINISHED" and self._finished is None:
                client = _client(self.store.uri)
                client.set_tag(self._id(), "backstop.error", message[:TAG_LIMIT])
                client.set_terminated(self._id(), "FAILED")

        return self._try(complete)

    def _try(self, action: Any) -> bool:
        _client_class()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _still_there(self.store)
                action()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":  # a mistake of ours, which waiting does not mend
                raise
            self.error = _line(error)
            self._again = time.monotonic() + PAUSE
            return False
        self.error, self._again = "", 0.0
        return True

    def _id(self) -> str:
        """The run's MLflow id: an unfinished one of the spec and of the same origin, made when there is none.

        A run of another origin is not gone on with: MLflow keeps the larger of two values of a round.
        """
        if self.run_id is None:
            client = _client(self.store.uri)
            made = of_tags(self._tags)
            run = next((run for run in self._stored() if of_tags(run.data.tags) == made), None)
            if run is None:
                run = client.create_run(self.experiment_id, tags=self._tags, run_name=title(self.spec))
            else:
                if run.info.status != "RUNNING":
                    client.update_run(run.info.run_id, status="RUNNING")
                if self.driver:
                    client.set_tag(run.info.run_id, DRIVER, self.driver)
            self._start, self._place, self._status = run.info.start_time, run.info.artifact_uri, "RUNNING"
            # parameters are immutable: only those that are missing are sent
            self._params = {key: value for key, value in self._params.items() if key not in run.data.params}
            self.run_id = str(run.info.run_id)
        return self.run_id

    def _stored(self) -> Iterator[Stored]:
        """The spec's runs in the experiment, those that count, the oldest first."""
        condition = f"tags.`backstop.id` = '{self.spec.id}' AND tags.`backstop.kind` = 'trial'"
        return _search(self.store, self.experiment_id, condition)

    @property
    def _separate(self) -> bool:
        """Whether what is sent now goes to a run beside a finished one."""
        return self._tags["backstop.kind"] == DISSENT

    def _send(self, more: Sequence[tuple[str, float, int]] = ()) -> None:
        """Send what is not sent yet, and ``more``; nothing where another process has finished the spec."""
        if not self._separate:
            finished = [run for run in self._stored() if run.info.status == "FINISHED"]
            if finished:
                begun, self._finished = self.run_id, finished[0]
                self.run_id = str(self._finished.info.run_id)
                if begun not in (None, self.run_id):  # ours is of another origin, and nobody will go on with it
                    _client(self.store.uri).set_terminated(begun, "KILLED")
                return
        run_id = self._id()
        points = [*self._metrics[self._sent :], *more]
        if not points and not self._params:
            return
        from mlflow.entities import Metric, Param

        count = len(self._metrics)
        described: list[Param] = [Param(key, value) for key, value in self._params.items()]
        _client(self.store.uri).log_batch(
            run_id,
            metrics=[Metric(name, value, self._start + step, step) for name, value, step in points],
            params=described,
        )
        self._sent, self._params = count, {}

    def _dissents(self, stored: Stored, final: Mapping[str, float]) -> bool:
        """Say what differs from a finished run of the same spec. Whether figures do: these get a run of their own."""
        made = of_tags(stored.data.tags)
        theirs = {key: value for key, value in stored.data.metrics.items() if key.startswith("final/")}
        ours = {key: float(value) for key, value in final.items() if math.isfinite(value)}
        figures = [
            f"{key} {theirs.get(key)!r} there, {ours.get(key)!r} here"
            for key in sorted({*theirs, *ours})
            if theirs.get(key) != ours.get(key)
        ]
        words = made.difference(self._origin) if made.data else ""
        if not figures and not words:
            return False
        which = f"run {self.spec.id[:12]} ({specs.title(self.spec)}, seed {self.spec.seed})"
        same = "with the same figures" if not figures else f"with other figures: {'; '.join(figures[:3])}"
        self.finding = f"{which} was finished by another process {same}"
        if words:
            self.finding += f"; that one was made with {words}"
        if figures:
            self.finding += "; the first one stays, these are kept as a run of kind 'dissent'"
            self._tags = self._tags | {"backstop.kind": DISSENT, "backstop.dissents": str(stored.info.run_id)}
            created = _client(self.store.uri).create_run(self.experiment_id, tags=self._tags, run_name=title(self.spec))
            self.run_id, self._start = str(created.info.run_id), created.info.start_time
            self._place, self._status = created.info.artifact_uri, "RUNNING"
            self._params, self._sent = params(self.spec), 0
        return bool(figures)

    def _deposit(self, contents: Mapping[str, str | bytes]) -> None:
        """Store artifacts: straight into a folder of this machine, through MLflow otherwise."""
        folder = _local(self._place)
        if folder is not None:
            try:
                _fill(folder, contents)
            except OSError as error:  # the same words for all runs: their reasons are gathered
                raise OSError(f"artifacts in {folder.parents[1]}: {error.strerror or error}") from error
            return
        with tempfile.TemporaryDirectory() as place:
            _fill(Path(place), contents)
            _client(self.store.uri).log_artifacts(self._id(), place)


def _still_there(store: Store) -> None:
    """OSError where the file of a store has gone: a new connection would make an empty one in its place."""
    file = database(store)
    if file is not None and not file.exists():
        raise FileNotFoundError(
            f"store {file} is not there any more; if it was moved, move what waits into its checkpoints folder and name it with --store"
        )


def title(spec: Spec) -> str:
    """A run's name: stages without parameters, seed, the first digits of the id."""
    chains = [specs.text([Part(stage.name) for stage in getattr(spec, role)], role) for role in ("attack", "defense")]
    return f"{' × '.join(chains)} · seed {spec.seed} · {spec.id[:8]}"


def _local(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    return Path(unquote(uri)) if not parts.scheme and uri.startswith("/") else None


def _fill(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    for name, content in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.new")  # a reader never sees half a file
        try:
            fresh.write_bytes(content if isinstance(content, bytes) else content.encode())
            fresh.replace(file)
        finally:
            fresh.unlink(missing_ok=True)


def read(store: Store, experiment: str, *, status: str | None = "FINISHED") -> list[Run]:
    """The experiment's runs, one per spec id, ordered by id. ``status=None`` reads the unfinished ones too.

    Raises BadInput when there is no such store or experiment.
    """
    file = database(store)
    if file is not None and _empty(file):
        raise BadInput(f"store {file}: there is no database yet; run a sweep first, or name its folder with --store")
    with _refusing(store):
        client = _client(store.uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            known = [item.name for item in client.search_experiments() if item.name != "Default"]
            raise BadInput(f"unknown experiment {experiment!r}; {nearest(experiment, known)}")
        condition = "tags.`backstop.kind` = 'trial'" + (f" AND attributes.status = '{_literal(status)}'" if status else "")
        runs: dict[str, Run] = {}
        for item in _search(store, found.experiment_id, condition):
            run = _run(store, item)
            if run.id not in runs or (run.status == "FINISHED" and runs[run.id].status != "FINISHED"):
                runs[run.id] = run
    return [runs[key] for key in sorted(runs)]


def find(store: Store, experiment: str, spec: Spec) -> Run | None:
    """The finished run of a spec, the first where there are several; None without one."""
    if is_new(store):
        return None
    with _refusing(store):
        found = _client(store.uri).get_experiment_by_name(experiment)
        if found is None:
            return None
        condition = f"tags.`backstop.id` = '{spec.id}' AND tags.`backstop.kind` = 'trial' AND attributes.status = 'FINISHED'"
        return next((_run(store, item) for item in _search(store, found.experiment_id, condition)), None)


def rounds(store: Store, run_id: str) -> list[tuple[int, dict[str, float]]]:
    """(round, its metrics) of a run, in order, without finals and costs."""
    listed: dict[int, dict[str, float]] = {}
    with _refusing(store):
        for name in sorted(_client(store.uri).get_run(run_id).data.metrics):
            if not name.startswith(("final/", "time/", "memory/")):
                for step, value in _history(store, run_id, name):
                    listed.setdefault(step, {})[name] = value
    return sorted(listed.items())


def model(store: Store, run_id: str) -> Mapping[str, Tensor]:
    """Name → tensor of the final model that a run has stored. Raises BadInput where it is not there."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as place, _refusing(store):
        return load_file(_client(store.uri).download_artifacts(run_id, "model.safetensors", place))


def _run(store: Store, item: Stored) -> Run:
    metrics = {key: float(value) for key, value in item.data.metrics.items() if math.isfinite(value)}
    label = item.data.tags.get("backstop.spec")
    made = of_tags(item.data.tags)
    return Run(
        id=item.data.tags.get("backstop.id", ""),
        run_id=str(item.info.run_id),
        spec=json.loads(label) if label else _stored_spec(store, item),
        metrics={key: value for key, value in sorted(metrics.items()) if key.startswith("final/")},
        costs={key: value for key, value in sorted(metrics.items()) if key.startswith(TOTALS)},
        fingerprint=made.fingerprint,
        status=str(item.info.status),
        data=made.data,
        code=made.code,
    )


def _stored_spec(store: Store, item: Stored) -> dict[str, Any]:
    """The spec from spec.json, for one that is too long for a tag."""
    with tempfile.TemporaryDirectory() as place:
        file = _client(store.uri).download_artifacts(item.info.run_id, "spec.json", place)
        document: dict[str, Any] = json.loads(Path(file).read_text())["spec"]
        return document


def curves(store: Store, runs: Sequence[Run], ids: Sequence[str], metrics: Sequence[str]) -> list[Run]:
    """The runs, those with the given spec ids with their metrics by round. One call per run and metric: ask for what is drawn."""
    wanted = set(ids)
    with _refusing(store):
        return [
            run._replace(curves={name: _history(store, run.run_id, name) for name in metrics}) if run.id in wanted else run for run in runs
        ]


def _history(store: Store, run_id: str, metric: str) -> list[tuple[int, float]]:
    """(round, value) in order of rounds; of two values of one round the first stored one."""
    points: dict[int, float] = {}
    for point in _client(store.uri).get_metric_history(run_id, metric):
        points.setdefault(point.step, point.value)
    return sorted(points.items())


def ui(store: Store, port: int) -> int:
    """MLflow's own pages on the store, until interrupted: its exit code. A server has its own, whose address is said."""
    if store.uri.startswith(("http://", "https://")):
        print(f"the tracking server's own pages: {store.uri}", file=sys.stderr)
        return 0
    file = database(store)
    if file is not None and _empty(file):
        raise BadInput(f"store {file}: there is no database yet; run a sweep first, or name its folder with --store")
    print(f"http://127.0.0.1:{port} shows {store.uri}; Ctrl-C ends it", file=sys.stderr)
    line = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri, "--host", "127.0.0.1", "--port", str(port)]
    # one worker and no job runners: the defaults start eleven processes for a single reader
    environment = {**QUIET, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    try:
        return subprocess.call([*line, "--workers", "1"], env=environment)
    except KeyboardInterrupt:
        return 130
