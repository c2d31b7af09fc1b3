"""The MLflow store: where it is, and a client whose errors are one line."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from backstop.platform import collector
from backstop.platform.params import BadInput
from backstop.platform.storage import Location, local_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Stored


ARTIFACTS = "mlartifacts"  # the folder of the artifacts, beside the database
# addresses of stores that have a place for artifacts
OWN_ARTIFACTS = ("http://", "https://", "sqlite:", "sqlite+")
LINE_LIMIT = 400  # characters that say which run is meant
PAGE = 1000  # runs per request
# MLflow's codes for what is no fault of the request: those of a proxy's 5xx, of a database that is
# away, and of a connection that broke with it
PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "BAD_REQUEST"}
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # else each run's end on a server is an address on stdout, which is ours
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
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


def locate_store(folder: Location) -> Store:
    """The store in use: ``$MLFLOW_TRACKING_URI``, else a database in the folder. Paths become
    absolute.

    An object store holds no database, so runs and their artifacts need a place of their own: a
    tracking server, or a database file of one machine.
    """
    root = local_folder(folder).expanduser().resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not isinstance(folder, Path) and not uri.startswith(OWN_ARTIFACTS):
        given = f"MLFLOW_TRACKING_URI={uri!r} is not enough" if uri else "that holds no runs"
        raise BadInput(
            f"--store {folder}: {given}; set MLFLOW_TRACKING_URI to a tracking server such as "
            "http://host:5000, or on one machine to a database such as sqlite:////data/mlflow.db"
        )
    if not uri:
        return _beside(root / "mlflow.db")
    if uri.startswith(("sqlite:", "sqlite+")):
        return _beside(_named_database(uri))
    if uri.startswith(("http://", "https://")):
        return Store(uri.rstrip("/"), "")
    if "://" not in uri or uri.startswith("file:"):
        raise BadInput(
            f"MLFLOW_TRACKING_URI={uri!r} is a folder; MLflow needs http://host:port "
            "or a database such as sqlite:////data/mlflow.db"
        )
    return Store(uri, str(root / ARTIFACTS))


def _named_database(uri: str) -> Path:
    """The file that a sqlite URI names. Raises BadInput for what no file is."""
    name = re.sub(r"^sqlite(\+\w+)?:///", "", uri)
    if name in ("", ":memory:") or name == uri:
        raise BadInput(
            f"MLFLOW_TRACKING_URI={uri!r}: runs are written by several processes; "
            "a file is needed, such as sqlite:////data/mlflow.db"
        )
    if "?" in name:
        raise BadInput(
            f"MLFLOW_TRACKING_URI={uri!r}: options after a ? are not allowed; "
            "a ? that belongs to the path is written %3F"
        )
    return Path(unquote(name)).resolve()


def _beside(file: Path) -> Store:
    """A database file with its artifacts beside it."""
    return Store(database_uri(file), str(file.parent / ARTIFACTS))


def database_uri(file: Path) -> str:
    """The URI of a database file. In a URI a ? begins the options and %41 is an A, so a path's own
    are quoted.
    """
    plain = str(file)
    quoted = plain.replace("%", "%25").replace("?", "%3F")
    if plain == quoted:
        return f"sqlite:///{plain}"
    # Of a URI that begins with sqlite:/// MLflow makes the folder as if nothing in it were quoted.
    return f"sqlite+pysqlite:///{quoted}"


def database_file(store: Store) -> Path | None:
    """The file of a sqlite store, else None."""
    if not store.uri.startswith("sqlite"):
        return None
    return Path(unquote(store.uri.partition(":///")[2]))


def is_new(store: Store) -> bool:
    """Whether the store is a database that does not exist yet."""
    file = database_file(store)
    return file is not None and empty(file)


def empty(file: Path) -> bool:
    """Whether the database file is not there or holds nothing yet."""
    return not file.exists() or file.stat().st_size == 0


@lru_cache
@collector.resting()
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
@collector.resting()  # MLflow imports what this kind of store needs
def mlflow_client(uri: str) -> MlflowClient:
    """The client of a store, made once."""
    return client_class()(uri)


class Away(BadInput):
    """A tracking server, or what it needs itself, does not answer now; the same may go through
    later.
    """


@contextmanager
def refusing(store: Store) -> Iterator[None]:
    """Errors of the store become BadInput: one line. Those that may pass by themselves are
    :class:`Away`.
    """
    client_class()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        kind = Away if _may_pass(store, error) else BadInput
        raise kind(f"tracking store {store.uri}: {one_line(error)}") from error


def _may_pass(store: Store, error: Exception) -> bool:
    """Whether an error is that of a server, of its database or of its artifacts that are away."""
    if not store.uri.startswith(("http://", "https://")):
        return False
    code = getattr(error, "error_code", None)  # MLflow's own; others have none
    return code is None or code in PASSING


def one_line(error: BaseException) -> str:
    """The line of an error that says what happened: SQLAlchemy's first one may only say when it was
    found out.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    telling = [line for line in lines if not line.startswith("(raised as a result of")]
    return (telling or lines)[0][:300]


def search_runs(
    store: Store,
    experiment_id: str,
    condition: str,
) -> Iterator[Stored]:
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


def check_still_there(store: Store) -> None:
    """Raise OSError where a store's file has gone: a new connection would make an empty one."""
    file = database_file(store)
    if file is not None and not file.exists():
        raise FileNotFoundError(
            f"store {file} is not there any more; if it was moved, move what waits into its "
            "checkpoints folder and name it with --store"
        )


def check_exists(store: Store) -> None:
    """Raise BadInput for a database that nothing was ever written to."""
    if is_new(store):
        raise BadInput(
            f"store {database_file(store)}: there is no database yet; "
            "run a sweep first, or name its folder with --store"
        )
