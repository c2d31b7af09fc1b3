"""What a cluster has beside Ray, on loopback: PostgreSQL, an MLflow server on it whose artifacts go
to an object store. Each can be killed and started again.
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.soundness import check_reachable
from backstop.platform.results.tracking.store import Store
from tests.buckets import ObjectStore, free_port, object_store

PATIENCE = 300.0  # seconds until a service answers


def program(name: str) -> str | None:
    """A program of PostgreSQL's: Debian keeps them out of PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or next(map(str, debian[-1:]), None)


def missing() -> str:
    """What the services lack; empty where all is there."""
    if program("postgres") is None or program("initdb") is None:
        return "there is no PostgreSQL: apt-get install postgresql brings one"
    if any(find_spec(name) is None for name in ("psycopg", "boto3", "moto", "flask")):
        extras = "pip install -c constraints.txt -e '.[test-s3,cluster]'"
        return f"there is no driver of PostgreSQL or no object store: {extras} brings them"
    return ""


needs_services = pytest.mark.skipif(bool(missing()), reason=missing() or "all is there")


def await_answer(process: subprocess.Popen[bytes], log: Path, answers: Callable[[], bool]) -> None:
    """Return when a process answers."""
    deadline = time.monotonic() + PATIENCE
    while not answers():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


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
        return f"postgresql://backstop@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Return when it takes questions."""
        line = [str(program("postgres")), "-D", str(self.folder), "-p", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*line, "-h", "127.0.0.1", "-k", ""],
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
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _has_children(folder: Path) -> bool:
    """Whether processes of a database's folder are left, which have it as their own."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").resolve() == folder.resolve():
                return True
    return False


class TrackingServer:
    """``mlflow server`` on a database, with its artifacts in an object store."""

    def __init__(self, folder: Path, database: str, objects: ObjectStore) -> None:
        self.port = free_port()
        self.log = folder / "mlflow.log"
        self.database = database
        self.objects = objects
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """What MLFLOW_TRACKING_URI is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when it answers."""
        line = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host=127.0.0.1"]
        line += [f"--port={self.port}", "--workers=1"]
        line += [f"--backend-store-uri={self.database}"]
        line += ["--artifacts-destination=s3://bucket/mlflow"]
        environment = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.objects.port}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                line,
                env=environment,
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


class Service(Protocol):
    """What can be killed, and is what it was when it is started again."""

    def start(self) -> None: ...

    def kill(self) -> None: ...


class Services(NamedTuple):
    """All three."""

    database: Postgres
    server: TrackingServer
    objects: ObjectStore


@contextmanager
def services(folder: Path) -> Iterator[Services]:
    """Running services, which end with the block."""
    with ExitStack() as stack:
        objects = stack.enter_context(object_store(folder))
        # below pytest's own folder no other user comes to anything
        elsewhere = stack.enter_context(tempfile.TemporaryDirectory(prefix="backstop-postgres-"))
        database = Postgres(Path(elsewhere))
        stack.callback(database.kill)
        database.start()
        server = TrackingServer(folder, database.uri, objects)
        stack.callback(server.kill)
        server.start()
        yield Services(database, server, objects)
