"""A private Ray's files go with its sweep, those of a killed one with the next start, and nobody
else's ever.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from backstop.platform.params import BadInput
from backstop.platform.sweeps.ray_tune import Precautions, RayTune
from backstop.platform.workers import connection, rays, sessions

NAME = "session_2026-11-28_17-13-22_521580_12631"
STARTS = """
import sys, time
from pathlib import Path
from backstop.platform.workers import sessions
earliest = sessions.earliest_session(Path(sys.argv[2]))
with sessions.recorded(Path(sys.argv[1]), earliest):
    print(earliest.name, flush=True)
    time.sleep(600)
"""
HOLDS = """
import sys, time
from pathlib import Path
from backstop.platform.workers import sessions
with sessions.recorded(Path(sys.argv[1]), Path(sys.argv[2])):
    print("in use", flush=True)
    time.sleep(600)
"""


def session(folder: Path, name: str = NAME) -> Path:
    """A session's folder with 1,000 bytes in it."""
    made = folder / "ray" / name
    (made / "logs").mkdir(parents=True)
    (made / "logs" / "raylet.out").write_bytes(bytes(1000))
    return made


def test_what_a_killed_sweep_leaves_behind_is_removed_with_its_processes(tmp_path: Path) -> None:
    store, used, others = tmp_path / "s", session(tmp_path), session(tmp_path, NAME + "0")
    line = [sys.executable, "-c", HOLDS, str(store), str(used)]
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    # Ray's agents name the folder that they log to, until they name themselves
    renamed = ["ray::Agent", *sleep[1:]]
    with (
        subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as sweep,
        subprocess.Popen([*sleep, f"--log-dir={used}/logs"]) as left,
        (used / "logs" / "agent.log").open("w") as log,
        subprocess.Popen(renamed, executable=sys.executable, stdout=log) as agent,
        (others / "logs" / "agent.log").open("w") as other_log,
        subprocess.Popen(renamed, executable=sys.executable, stdout=other_log) as other_agent,
        subprocess.Popen([*sleep, f"--log-dir={others}/logs"]) as other,
    ):
        assert sweep.stdout is not None and sweep.stdout.readline() == "in use\n"
        assert sessions.leftovers(store) == [], "it is in use"
        sweep.kill()
        sweep.wait()
        (leftover,) = sessions.leftovers(store)
        assert (leftover.sessions, leftover.size) == ([used], 1000)
        leftover.remove()
        assert left.wait(timeout=30) == -signal.SIGKILL
        assert agent.wait(timeout=30) == -signal.SIGKILL
        for stranger in (other, other_agent):
            assert stranger.poll() is None
            stranger.kill()
    assert not used.exists() and others.exists()
    assert sessions.leftovers(store) == []


def test_what_a_sweep_leaves_that_is_killed_while_its_ray_starts_is_removed(
    tmp_path: Path,
) -> None:
    store = tmp_path / "s"
    line = [sys.executable, "-c", STARTS, str(store), str(tmp_path / "ray")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdout is not None
        earliest = sweep.stdout.readline().strip()
        first, second = session(tmp_path, at(earliest, 1)), session(tmp_path, at(earliest, 40))
        others = [
            session(tmp_path, at(earliest, -1)),  # of a process that had the same number
            session(tmp_path, at(earliest, 3600)),  # of one that has it now
            session(tmp_path, at(earliest, 1) + "0"),
        ]
        assert sessions.leftovers(store) == [], "it still starts"
        sweep.kill()
    (leftover,) = sessions.leftovers(store)
    assert (leftover.sessions, leftover.size) == ([first, second], 2000)
    leftover.remove()
    assert not first.exists() and not second.exists()
    assert all(other.exists() for other in others)
    assert sessions.leftovers(store) == []


def at(name: str, seconds: int) -> str:
    """The name of a session of the same process that started so much later."""
    _, time, process = re.split(r"_(?=\d{4}-)|_(?=\d+$)", name)
    started = datetime.strptime(time, sessions.TIME)  # noqa: DTZ007 -- Ray's names have no zone
    later = started + timedelta(seconds=seconds)
    return f"session_{later.strftime(sessions.TIME)}_{process}"


def test_a_ray_that_does_not_start_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def fail(*_: object) -> None:
        made.append(session(tmp_path, sessions.earliest_session(tmp_path).name))
        raise RuntimeError("the raylet has died")

    monkeypatch.setattr(rays, "check_address", lambda _: tmp_path)
    monkeypatch.setattr(connection, "_connect", fail)
    store = tmp_path / "s"
    with pytest.raises(BadInput, match="has died"), connection.local_ray(None, 1, store=store):
        pass
    assert made and not made[0].exists()
    assert not list((store / "ray").iterdir())


@pytest.mark.parametrize(
    "record",
    [
        f"elsewhere\n/tmp/ray/{NAME}\n",
        f"{os.uname().nodename}\n/home/somebody\n",
        f"{os.uname().nodename}\n{NAME}\n",
        f"{os.uname().nodename}\n",
        "",
    ],
)
def test_what_is_no_session_of_this_machine_is_left_alone(tmp_path: Path, record: str) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "one").write_text(record)
    assert sessions.leftovers(tmp_path) == []


def test_the_next_start_removes_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = session(tmp_path)
    (tmp_path / "s" / "ray").mkdir(parents=True)
    (tmp_path / "s" / "ray" / "one").write_text(f"{os.uname().nodename}\n{used}\n")
    RayTune(precautions=Precautions(store=tmp_path / "s")).start()
    assert not used.exists()
    assert not list((tmp_path / "s" / "ray").iterdir())


def test_a_store_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "ray").write_text("in the way")
    with sessions.recorded(tmp_path, session(tmp_path / "tmp")):
        pass


@pytest.mark.slow  # a Ray of its own
def test_the_files_of_a_local_ray_go_with_it(tmp_path: Path) -> None:
    with connection.local_ray(None, 1, store=tmp_path):
        (record,) = (tmp_path / "ray").iterdir()
        (used,) = sessions.started_sessions(Path(record.read_text().splitlines()[1]))
        assert used.is_dir()
    assert not used.exists() and not record.exists()


HANGS_UP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.{before})
from backstop.platform import cli
cli.list_ = lambda options: os.kill(os.getpid(), signal.SIGHUP) or 0
sys.exit(cli.main(["list"]))
"""


@pytest.mark.parametrize(("before", "code"), [("SIG_DFL", 130), ("SIG_IGN", 0)])
def test_a_terminal_that_goes_is_an_interruption_unless_that_was_ruled_out(
    before: str, code: int
) -> None:
    line = [sys.executable, "-c", HANGS_UP.format(before=before)]
    found = subprocess.run(line, capture_output=True, text=True, check=False)
    assert found.returncode == code
    assert ("the same command goes on from there" in found.stderr) == (code == 130)


# Ray's C++ code takes SIGTERM as it starts: past Python, which knows nothing of it
TAKEN = """
import ctypes, os, signal, sys, time
from backstop.platform import cli
from backstop.platform.workers.connection import take_back_sigterm
def taken(options):
    ctypes.CDLL(None).signal(signal.SIGTERM, 1)  # SIG_IGN
    take_back_sigterm()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
cli.list_ = taken
sys.exit(cli.main(["list"]))
"""
# its handler sets an alarm before it calls Python's
ALARM = """
import os, signal, sys, time
from backstop.platform import cli
def alarmed(options):
    signal.alarm(1)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    finally:
        time.sleep(2)  # to end takes longer
cli.list_ = alarmed
sys.exit(cli.main(["list"]))
"""


@pytest.mark.parametrize("code", [TAKEN, ALARM], ids=["taken", "alarm"])
def test_a_request_to_stop_is_an_interruption_whatever_ray_has_made_of_it(code: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 130
    assert "the same command goes on from there" in found.stderr
