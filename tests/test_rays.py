"""The address of a cluster and the folder of a local Ray, checked before anything is started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import NoReturn

import pytest

from backstop.platform import cli
from backstop.platform.params import BadInput
from backstop.platform.workers import connection, rays
from backstop.platform.workers.connection import local_ray

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="paths and interfaces of Linux")
SPACE = """
from backstop.platform.contract import Spec

def space() -> list[Spec]:
    return [Spec(rounds=1)]
"""


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """The host:port of a server that says this to whoever comes, and nothing where it is None."""
    # not localhost, which Ray takes for another address
    with closing(socket.create_server(("127.0.0.2", 0))) as listening:
        kept: list[socket.socket] = []

        def serve() -> None:
            connection, _ = listening.accept()
            kept.append(connection)
            if answer is not None:
                connection.recv(100)
                with suppress(OSError):  # the caller may have gone
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)

        serving = Thread(target=serve, daemon=True)
        serving.start()
        yield "{}:{}".format(*listening.getsockname())
        serving.join(timeout=5)  # it may still be speaking to a caller that has heard enough
        for connection in kept:
            connection.close()


@pytest.fixture
def dead() -> str:
    """A host:port where nobody listens."""
    with closing(socket.create_server(("127.0.0.2", 0))) as listening:
        return "{}:{}".format(*listening.getsockname())


def test_what_speaks_as_ray_does_is_accepted() -> None:
    with server(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as address:
        assert rays.check_address(address) == address


def test_a_web_server_is_no_cluster() -> None:
    with (
        server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address,
        pytest.raises(BadInput, match="what answers there is no Ray"),
    ):
        rays.check_address(address)


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rays, "TIMEOUT", 0.3)
    with (
        server(None) as address,
        pytest.raises(BadInput, match=f"no Ray cluster at {address}: (no answer|timed out)"),
    ):
        rays.check_address(address)


def test_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rays, "TIMEOUT", 0.2)

    def slow(*_: object) -> None:
        time.sleep(1)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with pytest.raises(BadInput, match="no answer within"):
        rays.check_address("head.example:6379")


@pytest.mark.parametrize(
    "address",
    [
        "nonsense",
        "head",
        "head:",
        ":6379",
        "head:port",
        "head:0",
        "head:99999",
        "http://head:8265",
        "a b:6379",
    ],
)
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match=r"is not allowed; .* is host:port"):
        rays.check_address(address)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="there is no Ray cluster"):
        rays.check_address("head..example:6379")


def test_ray_client_is_refused() -> None:
    with pytest.raises(BadInput, match="on a node of the cluster"):
        rays.check_address("ray://head:10001")


def test_auto_is_the_cluster_that_was_started_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dead: str
) -> None:
    """And never another sweep's private Ray, which Ray itself would join."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(BadInput, match="no cluster was started on this machine"):
        rays.check_address("auto")
    (tmp_path / "ray").mkdir()
    current = tmp_path / "ray" / "ray_current_cluster"
    current.write_text(dead)
    with pytest.raises(
        BadInput, match=f"'auto': there is no Ray cluster at {dead}: connection refused"
    ):
        rays.check_address("auto")
    with server(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as address:
        current.write_text(address)
        assert rays.check_address("auto") == address


@pytest.mark.parametrize("address", [None, "", "local"])
def test_without_an_address_there_is_room_for_a_local_ray(
    monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert rays.check_address(address) == Path("/tmp")


def test_a_long_temporary_folder_is_left_for_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    own = 107 - len(f"/ray/session_2026-01-31_23-59-59_000000_{os.getpid()}/sockets/plasma_store")
    fits, long = ("/" + "d" * (length - 1) for length in (own, own + 1))
    monkeypatch.setenv("TMPDIR", fits)
    assert rays.room() == Path(fits)
    monkeypatch.setenv("TMPDIR", long)
    assert rays.room() == Path("/tmp")
    monkeypatch.setattr(rays, "SHORT", (long,))
    with pytest.raises(
        BadInput,
        match=(
            f"{long} is too long for Ray's sockets; set RAY_TMPDIR to a path of at most {own} bytes"
        ),
    ):
        rays.room()


def test_a_sweep_on_a_cluster_that_is_not_there_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], dead: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(SPACE.replace("space()", "mine()"))
    assert cli.main(["sweep", "mine.py", "--ray-address", dead]) == 2
    assert capsys.readouterr().err == (
        f"backstop: RAY_ADDRESS or --ray-address '{dead}': there is no Ray cluster at {dead}: "
        "connection refused;"
        " start it with `ray start --head`, or leave RAY_ADDRESS and --ray-address out for a "
        "private local Ray\n"
    )
    assert not Path("backstop-store/mlflow.db").exists()


def test_whoever_starts_ray_is_checked(dead: str) -> None:
    with pytest.raises(BadInput, match="connection refused"), local_ray(dead):
        pass


def test_a_ray_that_takes_too_long_to_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> None:
        # as Ray does
        raise Exception("The current node timed out during startup.\nMore.")  # noqa: TRY002

    monkeypatch.setattr(connection, "_connect", slow)
    told = "^Ray at local cannot be used: The current node timed out during startup.$"
    with pytest.raises(BadInput, match=told), local_ray(None):
        pass


@pytest.mark.parametrize(("words", "tries"), [("node timed out during startup", 3), ("no", 1)])
def test_a_ray_that_starts_too_slowly_is_started_again(
    monkeypatch: pytest.MonkeyPatch, words: str, tries: int
) -> None:
    starts: list[int] = []

    def fail(cpus: int, own: object) -> NoReturn:
        starts.append(cpus)
        raise Exception(f"The current {words}")  # noqa: TRY002 -- as Ray does

    monkeypatch.setattr(connection, "_init_own", fail)
    with (
        pytest.raises(BadInput, match=f"Ray at local cannot be used: The current {words}"),
        local_ray(None, 1),
    ):
        pass
    assert len(starts) == tries


@pytest.mark.slow
def test_a_local_ray_runs_where_the_temporary_folder_is_long_and_prepares_its_processes(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ("d" * 60)
    folder.mkdir()
    code = (
        "from backstop.platform.workers.connection import local_ray\n"
        "import os, sys\n"
        "seen = lambda: ('this' in sys.modules, os.nice(0))\n"
        "with local_ray(None, 1, preload='this') as ray:\n"
        "    print(ray.cluster_resources()['CPU'], ray.get(ray.remote(seen).remote()))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert found.stdout == f"1.0 (True, {os.nice(0)})\n", found.stderr
    assert (
        found.stderr == f"Ray keeps its files in /tmp/ray: {folder} is too long for its sockets\n"
    )
