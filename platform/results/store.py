"""The MLflow store: where it is, whether it can be used, and a client that refuses in one line."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname, urlopen

from backstop.platform.disk import file_lock, replacing
from backstop.platform.params import BadInput

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Stored


# the first bytes of a database file, sqlite.org/fileformat.html section 1.3.1
MAGIC = b"SQLite format 3\x00"
ARTIFACTS = "mlartifacts"  # the folder of the artifacts, beside the database
LINE_LIMIT = 400  # characters that say which run is meant
PAGE = 1000  # runs per request
ROOM = 2**21  # bytes: MLflow's empty tables take 0.9 MB, and as much again while they are made
# bytes that a database in use should find free: a run's rows, and the journal beside them
LITTLE = 2**18
TIMEOUT = 5.0  # seconds that the check at the start waits for a server
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # MLflow's own defaults let one call hang for minutes when the server is gone; the buffer makes
    # waiting needless.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class Store(NamedTuple):
    """Where runs are kept: MLflow's tracking URI, and the folder of the artifacts where we choose
    it (else empty).
    """

    uri: str
    artifacts: str


def locate_store(folder: Path) -> Store:
    """The store in use: ``$MLFLOW_TRACKING_URI``, else a database in the folder. Paths become
    absolute.
    """
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
            raise BadInput(
                f"MLFLOW_TRACKING_URI={uri!r}: options after a ? are not allowed; a ? that belongs to the path is written %3F"
            )
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
    """The URI of a database file. In a URI a ? begins the options and %41 is an A, so a path's own
    are quoted.
    """
    plain, quoted = str(file), str(file).replace("%", "%25").replace("?", "%3F")
    # Of a URI that begins with sqlite:/// MLflow makes the folder as if nothing in it were quoted.
    return f"sqlite:///{plain}" if plain == quoted else f"sqlite+pysqlite:///{quoted}"


def database_file(store: Store) -> Path | None:
    """The file of a sqlite store, else None."""
    return Path(unquote(store.uri.partition(":///")[2])) if store.uri.startswith("sqlite") else None


def is_new(store: Store) -> bool:
    """Whether the store is a database that does not exist yet."""
    file = database_file(store)
    return file is not None and empty(file)


def check_reachable(store: Store, *, write: bool = True) -> None:
    """Check, without MLflow, that the store can be read, and written unless ``write`` is False.
    Raises BadInput with one line that says why not.
    """
    file = database_file(store)
    if file is not None:
        if write:
            _check_writable(file)
        if not empty(file):
            _check_intact(file)
    elif store.uri.startswith(("http://", "https://")):
        try:
            with urlopen(f"{store.uri}/health", timeout=TIMEOUT):  # noqa: S310 -- the scheme is checked above
                pass
        except HTTPError as error:
            if error.code >= 500:
                raise BadInput(
                    f"tracking server {store.uri} answers {error.code} {error.reason}; is MLflow healthy there?"
                ) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise BadInput(
                f"tracking server {store.uri} cannot be reached: {reason}; start it, or unset MLFLOW_TRACKING_URI to use a local file"
            ) from None


def _check_writable(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            with file.open("r+b"):
                pass
        # sqlite also writes a journal beside the file
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".writable-"):
            pass
    except OSError as error:
        raise BadInput(f"store {file}: cannot be written: {error.strerror or error}") from None
    free, need = shutil.disk_usage(file.parent).free, ROOM if empty(file) else LITTLE
    if free < need:
        raise BadInput(
            f"store {file}: the disk is full: {free // 1024} KiB are free and at least {need // 1024} KiB are needed;"
            " make room, or choose another --store"
        )


def read_only(store: Store) -> bool:
    """Whether the store is a database that can be read and not be written."""
    file = database_file(store)
    return (
        file is not None
        and not empty(file)
        and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))
    )


def empty(file: Path) -> bool:
    """Whether the database file is not there or holds nothing yet."""
    return not file.exists() or file.stat().st_size == 0


def _check_intact(file: Path) -> None:
    wrong = BadInput(
        f"store {file}: is not a sound MLflow database; move it away or choose another --store"
    )
    try:
        with file.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise wrong
        connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=TIMEOUT)
        try:
            tables = {
                name
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                )
            }
            pages = (
                connection.execute("PRAGMA page_count").fetchone()[0]
                * connection.execute("PRAGMA page_size").fetchone()[0]
            )
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


def repair_locations(store: Store) -> str:
    """Mend the places of artifacts in a database that was moved or copied: MLflow keeps them as
    absolute paths, so that new artifacts would go where the store was before. What was mended, in a
    line; empty where there is nothing to mend.

    Raises BadInput where the artifacts were left behind: only their owner knows whether to move or
    to copy them.
    """
    file, here = database_file(store), Path(store.artifacts)
    if file is None or empty(file):
        return ""
    try:
        with closing(sqlite3.connect(file, timeout=TIMEOUT)) as connection:
            moved = [
                (number, location.rpartition("/")[0], _address_of(here, location))
                for number, location in connection.execute(
                    "SELECT experiment_id, artifact_location FROM experiments"
                )
                if (place := local_path(location or ""))
                and place.parent.name == ARTIFACTS
                and place.parent != here
            ]
            if not moved:
                return ""
            before = [place for _, old, _ in moved if (place := local_path(old))]
            for place in before:
                if not here.exists() and place.is_dir() and any(place.iterdir()):
                    raise BadInput(
                        f"store {file}: its artifacts are still in {place}; run: {shlex.join(['cp', '-r', str(place), str(here)])}"
                    )
            with connection:
                for number, old, new in moved:
                    for table, column in (
                        ("experiments", "artifact_location"),
                        ("runs", "artifact_uri"),
                    ):
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
    file = database_file(store)
    if file is not None and empty(file):
        _check_writable(file)
        _create(file, store.artifacts)
    with refusing(store):
        client = mlflow_client(store.uri)
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
        raise BadInput(
            f"experiment {name!r} was deleted in MLflow; choose another name or run: {restored_experiment(store, found.experiment_id)}"
        )
    return str(found.experiment_id)


def restored_experiment(store: Store, experiment_id: object) -> str:
    """The command line that brings a deleted experiment back."""
    words = ["mlflow", "experiments", "restore", "--experiment-id", str(experiment_id)]
    return f"MLFLOW_TRACKING_URI={shlex.quote(store.uri)} {shlex.join(words)}"


def _create(file: Path, artifacts: str) -> None:
    """Make MLflow's tables in a new file that appears at once and whole.

    Several processes that open a new database together would destroy it. MLflow's migrations make
    some 900 transactions: without waiting for the disk at each of them they take 2 s instead of 10.
    The file gets its name when it is on the disk.
    """
    with file_lock(file.with_name(f"{file.name}.lock")):
        if not empty(file):
            return
        with replacing(file) as fresh, _hastened(fresh):
            with refusing(Store(_address(file), artifacts)):
                from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

                made: Any = SqlAlchemyStore
                made(_address(fresh), artifacts).engine.dispose()
            with fresh.open("rb") as whole:
                os.fsync(whole.fileno())


@contextmanager
def _hastened(file: Path) -> Iterator[None]:
    """Let connections to a database file leave it to the system when to write to the disk."""
    import sqlalchemy

    def hasten(connection: Any, *_: object) -> None:
        if connection.execute("PRAGMA database_list").fetchone()[2] == str(file.resolve()):
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA journal_mode=MEMORY")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", hasten)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", hasten)


@lru_cache
def client_class() -> type[MlflowClient]:
    """MLflow's client, imported without its warnings and its telemetry."""
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
def mlflow_client(uri: str) -> MlflowClient:
    """The client of a store, made once."""
    return client_class()(uri)


@contextmanager
def refusing(store: Store) -> Iterator[None]:
    """Errors of the store become BadInput: one line."""
    client_class()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise BadInput(f"tracking store {store.uri}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The line of an error that says what happened: SQLAlchemy's first one may only say when it was
    found out.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next(
        (line for line in lines if not line.startswith("(raised as a result of")), lines[0]
    )[:300]


def search_runs(store: Store, experiment_id: str, condition: str) -> Iterator[Stored]:
    """All runs under the condition, the oldest first, page by page."""
    client, token = mlflow_client(store.uri), None
    while True:
        page = client.search_runs(
            [experiment_id],
            condition,
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def sql_literal(text: str) -> str:
    """Text for a filter: MLflow's filter language has no escape for quotes."""
    if "'" in text:
        raise BadInput(f"{text!r} holds a quote, which MLflow cannot search for")
    return text


def plain_text(value: object) -> str:
    """A parameter's value as MLflow shows it: plain decimal text, ``true``, ``false``, ``none``."""
    return (
        {None: "none", True: "true", False: "false"}[value]
        if value is None or isinstance(value, bool)
        else str(value)
    )


def still_there(store: Store) -> None:
    """OSError where the file of a store has gone: a new connection would make an empty one in its
    place.
    """
    file = database_file(store)
    if file is not None and not file.exists():
        raise FileNotFoundError(
            f"store {file} is not there any more; if it was moved, move what waits into its checkpoints folder and name it with --store"
        )


def local_path(uri: str) -> Path | None:
    """The folder that an artifact URI names, None for one elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    return Path(unquote(uri)) if not parts.scheme and uri.startswith("/") else None


def serve_ui(store: Store, port: int) -> int:
    """MLflow's own pages on the store, until interrupted: its exit code. A server has its own,
    whose address is said.
    """
    if store.uri.startswith(("http://", "https://")):
        print(f"the tracking server's own pages: {store.uri}", file=sys.stderr)
        return 0
    file = database_file(store)
    if file is not None and empty(file):
        raise BadInput(
            f"store {file}: there is no database yet; run a sweep first, or name its folder with --store"
        )
    print(f"http://127.0.0.1:{port} shows {store.uri}; Ctrl-C ends it", file=sys.stderr)
    line = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        store.uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    # one worker and no job runners: the defaults start eleven processes for a single reader
    environment = {**QUIET, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    try:
        return subprocess.call([*line, "--workers", "1"], env=environment)
    except KeyboardInterrupt:
        return 130
