"""What a trial may take: time and memory. Beyond that its process is ended from outside, whatever
it does: loops for ever, holds the interpreter's lock, sleeps in a system call.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from backstop.platform.workers.warden import GIB

WARDEN = Path(__file__).with_name("warden.py")


class Limits(NamedTuple):
    """What one trial may take; None is no limit."""

    minutes: float | None = None  # from its start in a process to its end
    gib: float | None = None  # of each of its processes
    logs: Path = Path()  # where the reason goes, and where the process was, by the trial's name

    @property
    def none(self) -> bool:
        """Whether there is nothing to watch."""
        return self.minutes is None and self.gib is None

    def order(self, log: Path) -> str:
        """What the warden is told."""
        words = {
            "seconds": f"took longer than --trial-minutes {self.minutes or 0:g}",
            "bytes": f"grew to {{:.1f}} GiB, more than --trial-memory {self.gib or 0:g}",
        }
        order = {
            "seconds": None if self.minutes is None else 60 * self.minutes,
            "bytes": None if self.gib is None else self.gib * GIB,
            "words": words,
            "log": str(log),
        }
        return json.dumps(order)


def log_path(logs: Path, name: str) -> Path:
    """The log of a trial that has failed."""
    return logs / f"{name}.txt"


class Guard:
    """Ends this process where a trial goes beyond its limits. Without limits it does nothing."""

    def __init__(self, limits: Limits) -> None:
        """Start the process that watches this one."""
        self.limits = limits
        self.log: IO[bytes] | None = None
        self.warden: subprocess.Popen[bytes] | None = None

    def begin(self, name: str) -> None:
        """The trial of this name begins now."""
        self.rest()
        if self.limits.none:
            return
        path = log_path(self.limits.logs.resolve(), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.log = path.open("ab")
        # a handler in C: it writes while somebody else has the interpreter's lock
        faulthandler.register(signal.SIGUSR2, self.log, all_threads=True)
        self._tell(self.limits.order(path))

    def rest(self) -> None:
        """No trial is under way."""
        if self.log is None:
            return
        self._tell("{}")
        faulthandler.unregister(signal.SIGUSR2)
        path = Path(self.log.name)
        self.log.close()
        self.log = None
        with suppress(OSError):
            if not path.stat().st_size:
                path.unlink()

    def _tell(self, order: str) -> None:
        if self.warden is None or self.warden.poll() is not None:
            self.warden = self._start()
        assert self.warden.stdin is not None
        self.warden.stdin.write(f"{order}\n".encode())
        self.warden.stdin.flush()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(WARDEN), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # the terminal's signals are not for it
        )

    def close(self) -> None:
        """Watch no longer."""
        self.rest()
        if self.warden is not None and self.warden.stdin is not None:
            self.warden.stdin.close()
            self.warden.wait()
            self.warden = None
