"""A sweep whose own Ray dies under it goes on by itself, and gives the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from queue import Queue

import pytest

from backstop.platform.workers import loss, sessions
from tests.test_sweep import SPACE, board, command, finished, sweep

AGAIN = """
import os, sys
print(os.environ.get("BACKSTOP_STARTS_AGAIN", "0"), sys.argv[1:], os.getpid())
from backstop.platform.commands.again import begin_again
begin_again("Ray's raylet")
"""


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def test_the_first_process_that_ends_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOOK_AGAIN_S", 0.01)
    told: Queue[str] = Queue()
    vital = {"raylet": sleeper(), "GCS": sleeper()}
    with loss.watched(vital, told.put):
        vital["GCS"].kill()
        assert told.get(timeout=30) == "GCS"
        vital["raylet"].kill()
        vital["raylet"].wait()
        time.sleep(0.1)
    assert told.empty()


def test_what_ends_after_the_block_is_nobodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOOK_AGAIN_S", 0.01)
    told: list[str] = []
    process = sleeper()
    with loss.watched({"raylet": process}, told.append):
        time.sleep(0.1)
    process.kill()
    process.wait()
    time.sleep(0.1)
    assert told == []


def test_a_command_begins_again_a_few_times_in_the_same_process(tmp_path: Path) -> None:
    (tmp_path / "again.py").write_text(AGAIN)
    line = [sys.executable, "again.py", "a b", "--c"]
    found = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    starts = [line.split(maxsplit=1) for line in found.stdout.splitlines()]
    assert [count for count, _ in starts] == ["0", "1", "2", "3", "4", "5"]
    (same,) = {rest for _, rest in starts}
    assert same.startswith("['a b', '--c'] ")
    *goes_on, end = found.stderr.splitlines()
    assert goes_on[0] == ("backstop: Ray's raylet has died; going on with a new one (1 of 5 times)")
    assert len(goes_on) == 5 and "the same command goes on from there" in end


def processes_in(session: Path, name: str) -> list[int]:
    """The processes of a session that have this name."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            named = words[0].endswith(name.encode())
            if named and session.name.encode() in b" ".join(words):
                found.append(int(folder.name))
    return found


def process_of(store: Path, name: str) -> int:
    """The process of a sweep's own Ray that has this name."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        for record in (store / "ray").glob("*"):
            earliest = Path(record.read_text().splitlines()[1])
            for session in sessions.started_sessions(earliest):
                if found := processes_in(session, name):
                    return found[0]
        time.sleep(0.5)
    pytest.fail(f"no {name} of the sweep")


@pytest.mark.slow  # two sweeps and four Rays
@pytest.mark.timeout(1500)
@pytest.mark.xdist_group("ray")
def test_a_sweep_whose_raylet_and_then_whose_gcs_are_killed_gives_the_same_bytes(
    tmp_path: Path,
) -> None:
    (tmp_path / "little.py").write_text(SPACE.replace("rounds=6", "rounds=100"))
    sweep(tmp_path, "little.py", "--store", "whole")
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command("sweep", "little.py", "--store", "cut"),
            cwd=tmp_path,
            stdout=stream,
            stderr=stream,
        )
        for name in ("raylet", "gcs_server"):
            before = finished(tmp_path / "cut")
            while process.poll() is None and finished(tmp_path / "cut") <= before:
                time.sleep(0.2)
            os.kill(process_of(tmp_path / "cut", name), signal.SIGKILL)
            time.sleep(5)  # until that Ray's record has gone
        assert process.wait() == 0, log.read_text()
    said = log.read_text()
    assert "Ray's raylet has died; going on with a new one (1 of 5 times)" in said
    assert "Ray's GCS has died; going on with a new one (2 of 5 times)" in said
    assert "Traceback" not in said
    assert board(tmp_path, "cut") == board(tmp_path, "whole")
    assert not list((tmp_path / "cut" / "ray").iterdir())
