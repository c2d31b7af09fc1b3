"""Files that appear whole or not at all, and locks that a dying process gives back."""

from __future__ import annotations

import fcntl
import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_name() -> str:
    """The folder of what is kept between commands, as it is given: ``$BACKSTOP_CACHE``, else
    ``~/.cache/backstop``.
    """
    return os.environ.get("BACKSTOP_CACHE") or "~/.cache/backstop"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside the given one, for the block to write to; the file then takes its place.

    No reader ever sees half a file, and where the block raises, what was there stays. The folder
    is made where it is missing. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)  # of a killed process that had the same number
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all; its folder is made where it is missing. Raises OSError."""
    with replacing(path) as fresh:
        fresh.write_bytes(content)


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes had begun to write and never put in the file's place. Whoever
    writes it now fails. Raises OSError.
    """
    for fresh in path.parent.glob(f".{glob.escape(path.name)}.[0-9]*"):
        fresh.unlink(missing_ok=True)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock, once whoever has it gives it back; the system does when a process dies.

    Raises OSError where the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def lock_of_one(path: Path, owner: str) -> Iterator[str | None]:
    """Hold a lock if nobody has it; the block is given None then, else what its owner says.

    What this owner says is in the file as long as the lock is held. Raises OSError where the file
    cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            yield file.read()
            return
        file.truncate(0)
        file.write(owner)
        file.flush()
        yield None


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock; the file is only read. Raises OSError without one."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
