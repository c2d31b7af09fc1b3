"""The processes of one sweep, and nobody else's.

A sweep under test has a temporary folder that no other one has. A process is the sweep's if its
environment or its command names that folder, if it has a file open there, or if its parent is the
sweep's. Ray's processes that rename themselves lose the first two marks and keep the third: their
logs are in the folder.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

DRIVER, OTHER = "driver", "other"
PROGRAMS = {"gcs_server": "GCS", "raylet": "raylet"}  # by the name of the file that is run
COMMANDS = {  # by what is in the command; the first that is there
    "ray::ResourceTrainable": "trial",
    "ray::Worker": "client actor",
    "ray::DashboardAgent": "agent",
    "ray::RuntimeEnvAgent": "agent",
    "ray::IDLE": "idle worker",
    "default_worker.py": "idle worker",
    "log_monitor.py": "log monitor",
    "monitor.py": "autoscaler",
    "dashboard.py": "dashboard",
    "warden.py": "warden",
    "backstop.platform.cli": DRIVER,
}


class Process(NamedTuple):
    """A process of a sweep."""

    pid: int
    kind: str


def processes_of(temporary: Path) -> list[Process]:
    """The processes of the sweep that has this temporary folder."""
    parents = dict(_living())
    ours = {pid for pid in parents if marked(pid, temporary)}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return [Process(pid, kind_of(pid)) for pid in sorted(ours - {os.getpid()})]


def _living() -> Iterator[tuple[int, int]]:
    """Every process that has not ended, and its parent."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # the name in brackets may hold anything, brackets too
            state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if state not in "ZX":
                yield int(folder.name), int(parent)


def marked(pid: int, temporary: Path) -> bool:
    """Whether a process has a mark of the folder's sweep; that of the test itself has none."""
    folder = Path("/proc", str(pid))
    name = os.fsencode(temporary)
    if pid == os.getpid():
        return False
    with suppress(OSError):
        if b"TMPDIR=" + name in (folder / "environ").read_bytes().split(b"\0"):
            return True
        if name + b"/" in (folder / "cmdline").read_bytes():
            return True
        return any(link.readlink().is_relative_to(temporary) for link in (folder / "fd").iterdir())
    return False


def kind_of(pid: int) -> str:
    """What a process is, by its command."""
    try:
        words = Path("/proc", str(pid), "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return OTHER
    program = Path(words[0]).name
    if program in PROGRAMS:
        return PROGRAMS[program]
    command = " ".join(words)
    return next((kind for part, kind in COMMANDS.items() if part in command), OTHER)


def send(process: Process, number: signal.Signals, temporary: Path) -> bool:
    """Send a signal to a process of the sweep; False where it has ended meanwhile. Its number may
    be another process's by now, so what gets the signal is held fast and looked at again.
    """
    try:
        held = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if process not in processes_of(temporary):
            return False
        signal.pidfd_send_signal(held, number)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(held)


def open_elsewhere(path: Path) -> bool:
    """Whether a process has a file mapped or open: then it is in use, not left behind."""
    inode = path.stat().st_ino
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(path) in (folder / "maps").read_text():
                return True
            for link in (folder / "fd").iterdir():
                with suppress(OSError):
                    found = link.stat()
                    if found.st_ino == inode and stat.S_ISREG(found.st_mode):
                        return True
    return False
