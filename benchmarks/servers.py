"""PostgreSQL and ``mlflow server`` on loopback, for benchmarks and tests. Each can be killed and
started again.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.soundness import check_reachable
from backstop.platform.results.tracking.store import Store

LOOPBACK = "127.0.0.1"
PATIENCE = 300.0  # seconds until a service answers


class Service(Protocol):
    """What can be killed, and is what it was when it is started again."""

    def start(self) -> None:
        """Return when it answers."""

    def kill(self) -> None:
        """End it at once."""


Kind = TypeVar("Kind", bound=Service)


@contextmanager
def started(service: Kind) -> Iterator[Kind]:
    """A service while the block lasts."""
    try:
        service.start()
        yield service
    finally:
        service.kill()


def free_port(host: str = LOOPBACK) -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind((host, 0))
        port: int = free.getsockname()[1]
        return port


def program(name: str) -> str | None:
    """A program of PostgreSQL's: Debian keeps them out of PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or next(map(str, debian[-1:]), None)


def await_answer(process: subprocess.Popen[bytes], log: Path, answers: Callable[[], bool]) -> None:
    """Return when a process answers."""
    deadline = time.monotonic() + PATIENCE
    while not answers():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """PostgreSQL while the block lasts, in a folder that its user comes to: below those of others
    it might not.
    """
    with (
        tempfile.TemporaryDirectory(prefix="backstop-postgres-") as folder,
        started(Postgres(Path(folder))) as database,
    ):
        yield database


def processor_s(root: int) -> float:
    """Seconds of the processor that a process and all below it have taken, ended ones too."""
    below: dict[int, list[int]] = {}
    ticks = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = file.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            below.setdefault(int(fields[1]), []).append(int(file.parent.name))
            ticks[int(file.parent.name)] = sum(map(int, fields[11:15]))  # proc(5)
    waiting, total = [root], 0
    while waiting:
        process = waiting.pop()
        total += ticks.get(process, 0)
        waiting += below.get(process, [])
    return total / os.sysconf("SC_CLK_TCK")


class Postgres:
    """A database server with a folder of its own, which trusts whoever is on this machine."""

    def __init__(self, folder: Path) -> None:
        """Make an empty cluster of databases in the folder, which is its user's from now on."""
        self.port = free_port()
        self.folder = folder / "cluster"
        self.log = folder / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.owner: dict[str, Any] = {}
        if os.geteuid() == 0:  # which it refuses to run as
            names = {entry.pw_name for entry in pwd.getpwall()}
            name = "postgres" if "postgres" in names else "nobody"
            entry = pwd.getpwnam(name)
            self.owner = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        made = ["--auth=trust", "--username=backstop", "--encoding=UTF8", "--locale=C"]
        subprocess.run(
            [str(program("initdb")), *made, f"--pgdata={self.folder}"],
            check=True,
            capture_output=True,
            cwd=folder,
            **self.owner,
        )

    @property
    def uri(self) -> str:
        """Its one database, as MLflow names it."""
        return f"postgresql://backstop@{LOOPBACK}:{self.port}/postgres"

    def start(self) -> None:
        """Return when it takes questions."""
        line = [str(program("postgres")), "-D", str(self.folder), "-p", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*line, "-h", LOOPBACK, "-k", ""],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self.owner,
            )
        await_answer(self.process, self.log, self._answers)

    def kill(self) -> None:
        """End it at once, as a machine that loses its power does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        lock = self.folder / "postmaster.pid"
        deadline = time.monotonic() + PATIENCE
        while _listens(self.port) or _has_children(self.folder):  # they see that it has died
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        lock.unlink(missing_ok=True)

    def _answers(self) -> bool:
        import psycopg

        with suppress(psycopg.OperationalError), psycopg.connect(self.uri):
            return True
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def _has_children(folder: Path) -> bool:
    """Whether processes of a database's folder are left, which have it as their own."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").resolve() == folder.resolve():
                return True
    return False


class TrackingServer:
    """``mlflow server`` on a database, with its artifacts in a folder or an object store."""

    def __init__(
        self,
        folder: Path,
        database: str,
        artifacts: str,
        *,
        workers: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``folder`` takes its log; ``artifacts`` are a path or an address, whose settings are in
        the environment.
        """
        self.port = free_port()
        self.log = folder / "mlflow.log"
        self.database = database
        self.artifacts = artifacts
        self.workers = workers
        self.environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """What MLFLOW_TRACKING_URI is."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Return when it answers."""
        line = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", f"--host={LOOPBACK}"]
        line += [f"--port={self.port}", f"--workers={self.workers}"]
        line += [f"--backend-store-uri={self.database}"]
        line += [f"--artifacts-destination={self.artifacts}"]
        environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                line,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,  # its workers end with it
            )
        await_answer(self.process, self.log, self._answers)

    def kill(self) -> None:
        """End it and its workers at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        with suppress(BadInput):
            check_reachable(Store(self.uri, ""))
            return True
        return False
