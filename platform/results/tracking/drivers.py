"""Which commands are at work on a store: each holds a lock on a file of its own there, which the
system gives back when it dies.

A run in MLflow names its driver, so whoever looks at a RUNNING run can tell whether anybody still
works on it. That holds for every process and machine that sees the folder, and no clock is read.
"""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from backstop.platform.disk import file_lock, is_locked, lock_of_one
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
            raise _unwritable(folder, error) from None
        yield name


@contextmanager
def alone(folder: Path, experiment: str, title: str) -> Iterator[None]:
    """Be the only sweep on an MLflow experiment while the block lasts.

    Raises BadInput where another process, on this machine or on another one that sees the folder,
    is at work on it.
    """
    name = hashlib.sha256(experiment.encode()).hexdigest()[:32]
    owner = f"sweep {title}, process {os.getpid()} on {platform.node()}"
    with ExitStack() as held:
        try:
            other = held.enter_context(lock_of_one(folder / FOLDER / f"{name}.sweep", owner))
        except OSError as error:
            raise _unwritable(folder, error) from None
        if other is not None:
            raise BadInput(
                f"experiment {experiment!r}: another sweep is at work on it ({other}); wait for it,"
                " end it, or name another --experiment"
            )
        yield


def _unwritable(folder: Path, error: OSError) -> BadInput:
    return BadInput(f"store {folder}: cannot be written: {error.strerror or error}")


def gone(folder: Path, name: str) -> bool | None:
    """Whether a driver has died; None where the folder does not know it: it may be at work on
    another folder.
    """
    try:
        return not is_locked(folder / FOLDER / name)
    except OSError:
        return None


def any_at_work(folder: Path) -> bool:
    """Whether some command is at work on the store."""
    return any(gone(folder, path.name) is False for path in (folder / FOLDER).glob("*"))


def forget(folder: Path, name: str) -> None:
    """Remove a driver's file, once no RUNNING run names it."""
    try:
        (folder / FOLDER / name).unlink(missing_ok=True)
    except OSError:
        return  # a store that can only be read
