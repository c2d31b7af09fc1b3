"""An object store on loopback for tests: moto's server, where it is installed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.servers import LOOPBACK, free_port

KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}
SERVER = Path(__file__).with_name("remembering_moto.py")
needs_moto = pytest.mark.skipif(
    find_spec("moto") is None or find_spec("flask") is None,
    reason="there is no object store: pip install -c constraints.txt -e '.[test-s3]' brings one",
)


class ObjectStore:
    """A server that can be killed, and has its objects when it is started again."""

    def __init__(self, folder: Path, host: str = LOOPBACK) -> None:
        """``folder`` takes its objects and its log; ``host`` is one of this machine's addresses."""
        self.host = host
        self.port = free_port(host)
        self.folder = folder
        self.log = folder / "moto.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def options(self) -> str:
        """What makes an address lead to this server."""
        return f"region=us-east-1&scheme=http&endpoint_override={self.host}:{self.port}"

    def address(self, path: str) -> str:
        """The address of a path in the one bucket."""
        return f"s3://bucket/{path}?{self.options}"

    def start(self) -> None:
        """Start it, with its bucket."""
        server = [sys.executable, "-W", "ignore", str(SERVER)]
        objects = str(self.folder / "objects")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*server, self.host, str(self.port), objects], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        from pyarrow.fs import S3FileSystem

        S3FileSystem(
            access_key=KEYS["AWS_ACCESS_KEY_ID"],
            secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region="us-east-1",
            scheme="http",
            endpoint_override=f"{self.host}:{self.port}",
            allow_bucket_creation=True,
        ).create_dir("bucket")

    def kill(self) -> None:
        """End it at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0


@contextmanager
def object_store(folder: Path, host: str = LOOPBACK) -> Iterator[ObjectStore]:
    """A running server whose keys are in the environment while the block lasts."""
    before = {name: os.environ.get(name) for name in KEYS}
    os.environ.update(KEYS)
    server = ObjectStore(folder, host)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
