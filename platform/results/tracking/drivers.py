"""Which commands are at work on a store: each holds a lock on a file of its own there, which the
system gives back when it dies.

A run in MLflow names its driver, so whoever looks at a RUNNING run can tell whether anybody still
works on it. That holds for every process and machine that sees the folder, and no clock is read.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from backstop.platform.disk import file_lock, is_locked
from backstop.platform.params import BadInput

FOLDER = "drivers"  # in the store


@contextmanager
def at_work(folder: Path) -> Iterator[str]:
    """Be a driver on the store in a folder while the block lasts; its name, by which :func:`gone`
    knows it.
    """
    name = uuid.uuid4().hex
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(folder / FOLDER / name))
        except OSError as error:
            reason = error.strerror or error
            raise BadInput(f"store {folder}: cannot be written: {reason}") from None
        yield name


def gone(folder: Path, name: str) -> bool | None:
    """Whether a driver has died; None where the folder does not know it: it may be at work on
    another folder.
    """
    try:
        return not is_locked(folder / FOLDER / name)
    except OSError:
        return None


def forget(folder: Path, name: str) -> None:
    """Remove a driver's file, once no RUNNING run names it."""
    try:
        (folder / FOLDER / name).unlink(missing_ok=True)
    except OSError:
        return  # a store that can only be read
