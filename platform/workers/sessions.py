"""The folders of private Rays: each is written down in the store that it works for, and removed
when its sweep ends, or at the start of the next one where the sweep was killed.

Ray takes seconds to start and says only then what its folder is called. So a record is made before
the start, of the earliest name that the folder can have: Ray names it by time and process.

Nothing is removed that is not written down here, and nothing whose sweep still lives: it holds a
lock on its record, which the system gives back when it dies.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from backstop.platform.disk import is_locked, lock_of_one

RECORDS = "ray"  # in the store: the records
# Ray's name of a session: by time and process
SESSION = re.compile(r"session_(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\d{6})_(\d+)")
TIME = "%Y-%m-%d_%H-%M-%S_%f"  # in that name
STARTS_WITHIN = timedelta(minutes=10)  # of the record, all tries to start together

RENAMED = b"ray::"  # how Ray's agents and workers call themselves once they are up


class Leftover(NamedTuple):
    """What a sweep that has died has left: one session for each try to start its Ray."""

    record: Path
    sessions: list[Path]

    @property
    def size(self) -> int:
        """Bytes in its files."""
        return sum(map(folder_size, self.sessions))

    def remove(self) -> None:
        """Remove its folders and its record, and end what still runs in them."""
        for session in self.sessions:
            end_session(session)
        self.record.unlink(missing_ok=True)


def earliest_session(folder: Path) -> Path:
    """Where in Ray's folder a session would be that this process starts now."""
    now = datetime.now()  # noqa: DTZ005 -- Ray's names have the time of the place
    return folder / f"session_{now.strftime(TIME)}_{os.getpid()}"


def started_sessions(earliest: Path) -> list[Path]:
    """The sessions of a process that began with this one, or soon after."""
    process = SESSION.fullmatch(earliest.name)
    if process is None:
        return []
    there = sorted(earliest.parent.glob(f"session_*_{process[2]}"))
    return [session for session in there if _is_soon_after(session, earliest)]


def _is_soon_after(session: Path, earliest: Path) -> bool:
    later, sooner = _start(session), _start(earliest)
    if later is None or sooner is None:
        return False
    return timedelta() <= later - sooner <= STARTS_WITHIN


def _start(session: Path) -> datetime | None:
    """When a session was started, by its name; None for what is no session."""
    named = SESSION.fullmatch(session.name)
    if named is None:
        return None
    try:
        return datetime.strptime(named[1], TIME)  # noqa: DTZ007 -- as in earliest_session
    except ValueError:
        return None


@contextmanager
def recorded(store: Path, earliest: Path) -> Iterator[None]:
    """Sessions that this process starts from the earliest one on are in use while the block lasts;
    their folders are the caller's to remove before the block ends. Where the process dies,
    :func:`leftovers` finds them.
    """
    record = store / RECORDS / uuid.uuid4().hex
    with ExitStack() as held:
        with suppress(OSError):  # a store that cannot be written keeps no records
            held.enter_context(lock_of_one(record, f"{platform.node()}\n{earliest}\n"))
        try:
            yield
        finally:
            with suppress(OSError):
                record.unlink(missing_ok=True)


def leftovers(store: Path) -> list[Leftover]:
    """What sweeps on the store that have died have left on this machine."""
    left = []
    for record in sorted((store / RECORDS).glob("*")):
        earliest = _dead_session(record)
        if earliest is not None:
            left.append(Leftover(record, started_sessions(earliest)))
    return left


def remove_leftovers(store: Path) -> None:
    """Remove what sweeps on the store that have died have left on this machine."""
    for leftover in leftovers(store):
        leftover.remove()


def _dead_session(record: Path) -> Path | None:
    """The earliest session of a record that nobody holds; None for another machine's, or none at
    all.
    """
    try:
        if is_locked(record):
            return None
        host, _, rest = record.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    session = Path(rest.strip())
    ours = host == platform.node() and _start(session) and session.is_absolute()
    return session if ours else None


def end_session(session: Path) -> None:
    """End the processes of a session whose sweep is over, and remove its folder."""
    for process in _processes(session):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)
    shutil.rmtree(session, ignore_errors=True)
    latest = session.with_name("session_latest")
    with suppress(OSError):
        if latest.is_symlink() and not latest.exists():
            latest.unlink()


def _processes(session: Path) -> list[int]:
    """The processes of a session: those whose command names its folder, and those of Ray's that
    have named themselves and hold a file open there.
    """
    left = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(folder.name) != os.getpid() and _belongs(folder, session):
                left.append(int(folder.name))
    return left


def _belongs(process: Path, session: Path) -> bool:
    """Whether a process, by its folder in /proc, is the session's. Raises OSError where it ends."""
    command = (process / "cmdline").read_bytes()
    if not command.startswith(RENAMED):
        return f"/{session.name}/".encode() in command + b"/"
    links = (process / "fd").iterdir()
    return any(link.readlink().is_relative_to(session) for link in links)


def folder_size(folder: Path) -> int:
    """Bytes in all files below a folder; what goes away meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
    return total
