"""How a database file is written while a sweep works on it: ahead, into a log beside it.

By default SQLite makes, syncs and removes a journal for each commit, which takes as long as the
commit's disk; a run has ten. In write-ahead mode a commit is appended to one log and synced there,
and readers do not wait for writers. Either way what is committed survives a kill and a power cut.

The log needs memory that all processes on the file share, so it is kept to file systems of one
machine. When the sweep has ended the file is whole by itself again, and may be copied or read where
nothing can be written. https://sqlite.org/wal.html
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.store import (
    Store,
    database_file,
    mlflow_client,
    refusing,
)

MOUNTS = Path("/proc/self/mounts")
ESCAPED = re.compile(r"\\([0-7]{3})")  # there: a space is \040
# file systems of one machine, as Linux names them
OF_ONE_MACHINE = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}
LOG = "-wal"  # behind the file's name
OTHERS_S = 3.0  # seconds that the end of a sweep waits for processes that end, too
AGAIN_S = 0.05  # between two tries; SQLite's own timeout does not hold for a change of mode


def write_ahead(store: Store) -> None:
    """Begin to write a database file ahead, where its file system allows it."""
    file = database_file(store)
    if file is not None and of_one_machine(file):
        _set_mode(file, "WAL")


@contextmanager
def settling(store: Store) -> Iterator[None]:
    """Put what was written ahead into the file itself at the end of the block. While another
    process works on the file, its log stays; the sweep that ends last does this.
    """
    try:
        yield
    finally:
        _settle(store)


def _settle(store: Store) -> None:
    file = database_file(store)
    if file is None or not written_ahead(file):
        return
    _leave(store)
    deadline = time.monotonic() + OTHERS_S
    while not _set_mode(file, "DELETE") and time.monotonic() < deadline:
        time.sleep(AGAIN_S)


def of_one_machine(file: Path, mounts: Path = MOUNTS) -> bool:
    """Whether the file's disk is known to belong to this machine alone."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    kinds: dict[str, str] = {}
    for line in lines:
        _, mounted, kind, *_ = line.split()
        kinds[ESCAPED.sub(_unescaped, mounted)] = kind
    for folder in file.resolve().parents:
        if str(folder) in kinds:
            return kinds[str(folder)] in OF_ONE_MACHINE
    return False


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 8))


def written_ahead(file: Path) -> bool:
    """What the file's header says of its mode: https://sqlite.org/fileformat.html section 1.3.3."""
    try:
        with file.open("rb") as opened:
            return opened.read(20)[18:20] == b"\2\2"
    except OSError:
        return False


def _leave(store: Store) -> None:
    """Close this process's idle connections; where that fails the log stays, and is no fault of the
    sweep.
    """
    with suppress(BadInput), refusing(store):
        client: Any = mlflow_client(store.uri)
        client._tracking_client.store.engine.dispose()  # noqa: SLF001 -- there is no public way


def _set_mode(file: Path, mode: str) -> bool:
    """Whether the file has the mode now: not where another connection is open or the disk full."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(file)) as connection:
        (reached,) = connection.execute(f"PRAGMA journal_mode={mode}").fetchone()
        return str(reached).upper() == mode
    return False
