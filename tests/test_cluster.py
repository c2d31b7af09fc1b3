"""Four machines that share a network and nothing else: one is switched off in mid-sweep, one joins
late, one loses its network for a while; the leaderboard has the bytes of a sweep on one machine.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backstop.platform import storage
from backstop.platform.rounds.checkpoint import saved_ids
from tests.buckets import ObjectStore, needs_moto, object_store
from tests.machines import HOST, Machine, network
from tests.test_jobs import BACKSTOP, RAY
from tests.test_services import BOARD, RUNS, SPACE, check_stored, ended, stored, sweep
from tests.test_stored import Server

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow, needs_moto]
PORT = 6379
SEEDS = 6
LARGER = SPACE.replace("seed=range(2)", f"seed=range({SEEDS})").replace("rounds=100", "rounds=300")
ALL = RUNS * SEEDS // 2
JOINED = "Ray runtime started"
PATIENCE_S = 300.0  # seconds until what the test waits for has happened
LOOKS_S = 0.2  # seconds between two looks
CUT_S = 5.0  # that a cable is out


def await_that(
    happened: Callable[[], bool],
    meanwhile: subprocess.Popen[bytes],
    said: Path,
) -> None:
    """Return when something has happened; a process may not end before."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert meanwhile.poll() is None and time.monotonic() < deadline, said.read_text()
        time.sleep(LOOKS_S)


def start_ray(machine: Machine, head: Machine) -> None:
    """Let a machine with one processor join the head's Ray, or begin it; return when it has."""
    line = [*RAY, "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    line += [f"--node-ip-address={machine.address}", "--object-store-memory=80000000"]
    if machine is head:
        line += ["--head", f"--port={PORT}", "--include-dashboard=false"]
    else:
        line += [f"--address={head.address}:{PORT}"]
    said = machine.file("ray.log")
    with said.open("wb") as log:
        process = machine.start(line, {"PYTHONUNBUFFERED": "1"}, log)
    await_that(lambda: JOINED in said.read_text(), process, said)


def trains(machine: Machine) -> bool:
    """Whether one of the sweep's runs is on a machine."""
    return any("ray::ResourceTrainable" in command for command in machine.commands())


@contextmanager
def tracking(folder: Path) -> Iterator[Server]:
    """An MLflow server that all machines reach."""
    server = Server(folder, HOST)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def start_sweep(head: Machine, server: Server, objects: ObjectStore) -> subprocess.Popen[bytes]:
    """The command, given on the head."""
    head.file("few.py").write_text(LARGER)
    line = [*BACKSTOP, "sweep", "few.py", "--device", "cpu", "--store", objects.address("swept")]
    surroundings = {
        "RAY_ADDRESS": f"{head.address}:{PORT}",
        "MLFLOW_TRACKING_URI": server.uri,
        "BACKSTOP_CACHE": str(Machine.HOME / "cache"),
    }
    with head.file("said").open("wb") as log:
        return head.start(line, surroundings, log)


@pytest.mark.timeout(3000)
def test_machines_without_a_common_disk_come_and_go_and_no_byte_changes(tmp_path: Path) -> None:
    alone = sweep(tmp_path / "alone", space=LARGER)
    assert alone.wait(1200) == 0, (tmp_path / "alone/said").read_text()
    with network() as net, object_store(tmp_path, HOST) as objects, tracking(tmp_path) as server:
        head, lost, cut, _ = (net.machine() for _ in range(4))
        for machine in net.machines:
            start_ray(machine, head)
        running, said = start_sweep(head, server, objects), head.file("said")

        def finished(count: int) -> bool:
            states = [status for _, _, status in stored(server.uri, "few")]
            return states.count("FINISHED") >= count

        with ended(running):
            await_that(lambda: finished(2) and trains(lost), running, said)
            lost.switch_off()
            late = net.machine()
            start_ray(late, head)
            await_that(lambda: trains(late) and trains(cut), running, said)
            cut.pull_cable()
            time.sleep(CUT_S)
            cut.plug_in()
            running.wait(1200)
            words = said.read_text()
            board = head.file(str(BOARD))
            assert running.returncode == 0, words
            assert "Traceback" not in words
            assert board.read_bytes() == (tmp_path / "alone" / BOARD).read_bytes()
        check_stored(server.uri, ALL)
        assert saved_ids(storage.locate(objects.address("swept")) / "checkpoints") == set()
