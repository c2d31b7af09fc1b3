"""Where artifacts are: MLflow keeps absolute paths, which a moved or copied store makes untrue."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.soundness import LOCK_TIMEOUT
from backstop.platform.results.tracking.store import ARTIFACTS, Store, database_file, empty


class _Move(NamedTuple):
    """An experiment whose artifacts are looked for where the store was before."""

    experiment: str
    old: str  # the folder's location as it is written
    new: str


def repair_locations(store: Store) -> str:
    """Correct the locations of artifacts in a database that was moved or copied: what was done, in
    a line; empty where there is nothing to do.

    Raises BadInput where the artifacts were left behind: only their owner knows whether to move or
    to copy them.
    """
    file, here = database_file(store), Path(store.artifacts)
    if file is None or empty(file):
        return ""
    try:
        with closing(sqlite3.connect(file, timeout=LOCK_TIMEOUT)) as connection:
            moves = list(_moves(connection, here))
            folders = [folder for move in moves if (folder := local_path(move.old))]
            for folder in folders:
                _check_not_left_behind(file, folder, here)
            with connection:
                for move in moves:
                    _rewrite(connection, move)
    except (sqlite3.Error, OSError) as error:
        raise BadInput(f"store {file}: {error}") from None
    if not moves:
        return ""
    return (
        f"the store was moved or copied here from {folders[-1].parent}; "
        f"its artifacts are looked for in {here} from now on"
    )


def _moves(connection: sqlite3.Connection, here: Path) -> Iterator[_Move]:
    rows = connection.execute("SELECT experiment_id, artifact_location FROM experiments")
    for experiment, location in rows:
        folder = local_path(location or "")
        if folder and folder.parent.name == ARTIFACTS and folder.parent != here:
            yield _Move(experiment, location.rpartition("/")[0], _address_of(here, location))


def _check_not_left_behind(
    file: Path,
    folder: Path,
    here: Path,
) -> None:
    if not here.exists() and folder.is_dir() and any(folder.iterdir()):
        command = shlex.join(["cp", "-r", str(folder), str(here)])
        raise BadInput(f"store {file}: its artifacts are still in {folder}; run: {command}")


def _rewrite(connection: sqlite3.Connection, move: _Move) -> None:
    length = len(move.old)
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        connection.execute(  # the names are this function's own
            f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608
            f" WHERE experiment_id = ? AND substr({column}, 1, ?) = ?",
            (move.new, length + 1, move.experiment, length, move.old),
        )


def _address_of(folder: Path, like: str) -> str:
    """A folder as the other location is written: as a URI or as a path."""
    return folder.as_uri() if like.startswith("file:") else str(folder)


def local_path(uri: str) -> Path | None:
    """The folder that an artifact URI names, None for one elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    if not parts.scheme and uri.startswith("/"):
        return Path(unquote(uri))
    return None
