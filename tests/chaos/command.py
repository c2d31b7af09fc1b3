"""The command of one sweep, as a user gives it: again and again, until it has ended with 0."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.processes import DRIVER, Process, processes_of, send
from tests.chaos.shared_memory import EVERYBODYS, with_memory
from tests.chaos.stored import finished
from tests.test_sweep import command

HANGS_S = 480.0  # seconds after which a command that nobody disturbs has to have ended
LOOKS_S = 0.1  # seconds between two looks
PICK_S = 15.0  # that a process of a kind is waited for


class Command:
    """A sweep in a folder, with a temporary folder of its own."""

    def __init__(
        self,
        folder: Path,
        temporary: Path,
        options: Sequence[str] = (),
        *,
        store: str = "store",
        database: str = "store/mlflow.db",
        environment: Mapping[str, str] | None = None,
        memory: Path = EVERYBODYS,
    ) -> None:
        """``database`` is where the runs are, as seen from the folder; ``memory`` is what its
        processes have as shared memory.
        """
        self.folder = folder
        self.temporary = temporary
        self.store = folder / store
        self.database = folder / database
        self.memory = memory
        line = command("sweep", "little.py", "--store", store, "--device", "cpu", *options)
        self.line = with_memory(memory, line)
        self.environment = {
            **os.environ,
            **(environment or {}),
            "TMPDIR": str(temporary),
            "PYTHONFAULTHANDLER": "1",  # a command that hangs says where
        }
        self.log = folder / "log"
        self.drivers: list[int] = []
        self.codes: list[int] = []

    def start(self) -> None:
        """Give the command."""
        with self.log.open("a") as stream:
            self.driver = subprocess.Popen(
                self.line,
                cwd=self.folder,
                env=self.environment,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.drivers.append(self.driver.pid)

    @property
    def over(self) -> bool:
        """Whether the command has ended."""
        return self.driver.poll() is not None

    def wait(self) -> int:
        """Its exit code. Where it hangs, the test fails and shows where."""
        try:
            code = self.driver.wait(HANGS_S)
        except subprocess.TimeoutExpired:
            self.driver.send_signal(signal.SIGABRT)
            self.driver.wait()
            pytest.fail(f"the command hangs:\n{self.log.read_text()}")
        self.codes.append(code)
        self.note(f"exit code {code}")
        return code

    def note(self, words: str) -> None:
        """Write among what the command says what has happened."""
        with self.log.open("a") as stream:
            stream.write(f"chaos: {words}\n")

    def finished(self) -> int:
        """Runs that are finished."""
        return finished(self.database)

    def processes(self, kind: str = "") -> list[Process]:
        """Its processes, of one kind or of all. A process that the driver is about to start is not
        a second driver.
        """
        found = [one for one in processes_of(self.temporary) if kind in {"", one.kind}]
        return [one for one in found if kind != DRIVER or one.pid == self.driver.pid]

    def pick(self, kind: str, draw: float) -> Process | None:
        """One of its processes of a kind, waited for a while; None where there is none or the
        command ends before. ``draw`` from [0, 1) says which of several.
        """
        deadline = time.monotonic() + PICK_S
        while not self.over and time.monotonic() < deadline:
            if there := self.processes(kind):
                return there[int(draw * len(there))]
            time.sleep(LOOKS_S)
        return None

    def send(self, process: Process, number: signal.Signals) -> bool:
        """Send a signal to a process of the sweep; False where it has ended."""
        return send(process, number, self.temporary)

    def kill_all(self) -> None:
        """Kill everything at once, whatever is started meanwhile."""
        while there := self.processes():
            for process in there:
                self.send(process, signal.SIGKILL)
            time.sleep(LOOKS_S)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder with a name short enough for Ray's sockets; no process that lives in it
    outlives the block.
    """
    with tempfile.TemporaryDirectory(
        prefix="chaos-", dir="/tmp", ignore_cleanup_errors=True
    ) as made:
        folder = Path(made)
        try:
            yield folder
        finally:
            for process in processes_of(folder):
                send(process, signal.SIGKILL, folder)
