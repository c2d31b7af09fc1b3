"""Whether a store can be read and written, found out without MLflow."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.journal import LOG, written_ahead
from backstop.platform.results.tracking.store import Store, database_file, empty

# the first bytes of a database file, sqlite.org/fileformat.html section 1.3.1
MAGIC = b"SQLite format 3\x00"
# bytes free for a new store: MLflow's empty tables take 0.9 MB, and as much while they are made
NEW_STORE_BYTES = 2**21
# bytes that a database in use should find free: a run's rows, and the journal beside them
SPARE_BYTES = 2**18
SERVER_TIMEOUT = 5.0  # seconds that the check at the start waits for a server
LOCK_TIMEOUT = 5.0  # the same for a database that somebody writes to
TABLES = {"experiments", "runs", "alembic_version"}  # some that every MLflow database has


def check_reachable(store: Store, *, write: bool = True) -> None:
    """Check, without MLflow, that the store can be read, and written unless ``write`` is False.

    Raises BadInput with one line that says why not.
    """
    file = database_file(store)
    if file is not None:
        if write:
            check_database_writable(file)
        if not empty(file):
            _check_intact(file)
    elif store.uri.startswith(("http://", "https://")):
        _check_server(store.uri)


def _check_server(uri: str) -> None:
    try:
        # the caller checks the scheme
        with urlopen(f"{uri}/health", timeout=SERVER_TIMEOUT):  # noqa: S310
            pass
    except HTTPError as error:
        if error.code >= 500:
            raise BadInput(
                f"tracking server {uri} answers {error.code} {error.reason}; "
                "is MLflow healthy there?"
            ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise BadInput(
            f"tracking server {uri} cannot be reached: {reason}; start it, "
            "or unset MLFLOW_TRACKING_URI to use a local file"
        ) from None


def check_database_writable(file: Path) -> None:
    """Check that a database file can be written, or made, and that the disk has room for it."""
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
    need = NEW_STORE_BYTES if empty(file) else SPARE_BYTES
    free = shutil.disk_usage(file.parent).free
    if free < need:
        raise BadInput(
            f"store {file}: the disk is full: {free // 1024} KiB are free and at least "
            f"{need // 1024} KiB are needed; make room, or choose another --store"
        )


def read_only(store: Store) -> bool:
    """Whether the store is a database that can be read and not be written."""
    file = database_file(store)
    if file is None or empty(file):
        return False
    return not all(os.access(path, os.W_OK) for path in (file, file.parent))


def _check_intact(file: Path) -> None:
    refusal = BadInput(
        f"store {file}: is not a sound MLflow database; move it away or choose another --store"
    )
    try:
        intact = _begins_as_database(file) and _is_whole(file)
    except sqlite3.OperationalError as error:
        if "locked" in str(error):  # somebody is writing: that is a sound database
            return
        if written_ahead(file):
            raise BadInput(
                f"store {file}: a sweep on it did not end in order, and it cannot be read where "
                f"nothing can be written; copy it, with {file.name}{LOG} if that is there, to a "
                "folder where you can write"
            ) from None
        raise refusal from None
    except (sqlite3.Error, OSError):
        raise refusal from None
    if not intact:
        raise refusal


def _begins_as_database(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def _is_whole(file: Path) -> bool:
    """Whether MLflow's tables are in the database, and all its pages in the file or in its log."""
    uri = f"file:{quote(str(file))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in rows}
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    log = file.with_name(file.name + LOG)
    length = file.stat().st_size + (log.stat().st_size if log.exists() else 0)
    return tables >= TABLES and pages * page_bytes <= length
