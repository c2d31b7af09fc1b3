"""``ray job submit``, as docs/cluster.md has it, on a head that the test starts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.servers import free_port

RAY = [sys.executable, "-W", "ignore", "-m", "ray.scripts.scripts"]
BACKSTOP = [sys.executable, "-W", "ignore", "-m", "backstop.platform.cli"]
SWEEP = ["sweep", "smoke", "--device", "cpu", "--store"]
BOARD = Path("leaderboards", "smoke", "leaderboard.json")
STARTS = 300.0  # seconds until a head takes jobs
needs_jobs = pytest.mark.skipif(
    find_spec("aiohttp_cors") is None or find_spec("opencensus") is None,
    reason="Ray takes no jobs: pip install -c constraints.txt -e '.[cluster]' brings its dashboard",
)


@contextmanager
def head(folder: Path) -> Iterator[str]:
    """A Ray of two processors that takes jobs while the block lasts; the address for them."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    line = [*RAY, "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"]
    line += [f"--port={free_port()}", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    line += ["--object-store-memory=200000000", f"--ray-client-server-port={free_port()}"]
    log = folder / "head.log"
    with log.open("wb") as said:
        started = subprocess.Popen(line, cwd=folder, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + STARTS
        while not takes_jobs(address):
            assert started.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield address
    finally:
        started.terminate()  # it ends its processes
        started.wait(120)


def takes_jobs(address: str) -> bool:
    """Whether there is a head, and an agent that starts jobs."""
    with suppress(OSError), urllib.request.urlopen(f"{address}/api/jobs/", timeout=10):
        return True
    return False


def job(address: str, *words: str) -> str:
    """What a command on jobs says."""
    verb, *rest = words
    line = [*RAY, "job", verb, "--address", address, *rest]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_jobs
@pytest.mark.slow  # two sweeps and a head
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(3000)
def test_a_submitted_sweep_writes_the_bytes_of_one_at_home(tmp_path: Path) -> None:
    home, shared = tmp_path / "home", tmp_path / "shared"
    subprocess.run(
        [*BACKSTOP, *SWEEP, str(home)],
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": ""},
        check=True,
        timeout=1200,
    )
    with head(tmp_path) as address:
        submitted = ["--submission-id", "smoke", "--no-wait", "--"]
        job(address, "submit", *submitted, *BACKSTOP, *SWEEP, str(shared))
        said = job(address, "logs", "--follow", "smoke")
        assert "succeeded" in job(address, "status", "smoke")
    assert "starting Ray" in said and "Traceback" not in said
    assert (shared / BOARD).read_bytes() == (home / BOARD).read_bytes()
