"""Sweeps on Ray Tune: everything finishes, nothing runs twice, a kill loses nothing, and the worker
count changes nothing.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from backstop.platform.results.tracking.journal import of_one_machine, written_ahead
from tests import by_hand
from tests.mounts import mounted

pytestmark = pytest.mark.xdist_group("ray")
STORE = "backstop-store"  # where a sweep writes that is told nowhere else
SPACE = """
from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid

BASE = Spec(
    model=Part("logistic"), clients=10, per_round=5, rounds=6, batch=16, root_size=20,
    optimizer=Part("sgd", {"lr": 0.1}),
)

def little():
    attack = "badnets+model_replacement(strength=3)"
    return grid(BASE, attack=[attack], defense=["median", "invariant"], seed=range(2))
"""
BROKEN = """
from pathlib import Path
from typing import Annotated
from backstop.platform.contract import Defense

def broken() -> Defense:
    def apply(updates, state, view):
        with Path(__file__).with_name("tries").open("a") as tries:
            tries.write("one more\\n")
        raise RuntimeError("the defense broke")
    return Defense(init=lambda view: None, apply=apply)
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "backstop.platform.cli", *arguments]


def sweep(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        command("sweep", *arguments), cwd=folder, capture_output=True, text=True, check=False
    )
    assert found.returncode == code, found.stderr
    assert "Traceback" not in found.stderr
    return found


@pytest.fixture
def space(tmp_path: Path) -> str:
    (tmp_path / "little.py").write_text(SPACE)
    return "little.py"


def left_by_a_killed_sweep(store: Path) -> Path:
    """The folder of a Ray whose sweep on the store was killed as its last run ended."""
    session = store.parent.resolve() / "session_2026-01-01_00-00-00_000000_1"
    session.mkdir()
    (store / "ray" / "record").write_text(f"{platform.node()}\n{session}\n")
    return session


def board(folder: Path, store: str) -> bytes:
    return (folder / store / "leaderboards" / "little" / "leaderboard.json").read_bytes()


@pytest.mark.timeout(600)
def test_a_sweep_is_done_once_more_seeds_run_what_is_missing_and_workers_change_nothing(
    tmp_path: Path, space: str
) -> None:
    on_actors = sweep(
        tmp_path, space, "--seeds", "1", "--client-actors", "2", "--max-concurrent", "1"
    )
    assert "6/6 done" in on_actors.stderr
    assert "invariant" in on_actors.stdout
    assert len(on_actors.stderr.splitlines()) < 30, (
        f"a quiet run, no wall of log lines:\n{on_actors.stderr}"
    )
    of_one_seed = json.loads(board(tmp_path, STORE))["runs"]
    assert len(of_one_seed) == 6
    more = sweep(tmp_path, space, "--seeds", "2")
    assert "6 of 12 runs are finished already" in more.stderr, more.stderr
    before = board(tmp_path, STORE)
    document = json.loads(before)
    assert [run for run in document["runs"] if run["spec"]["seed"] == 0] == of_one_seed
    assert before == by_hand.whole(SPACE).board, "in one process, without any workers"
    session = left_by_a_killed_sweep(tmp_path / STORE)
    again = sweep(tmp_path, space)
    assert "all 12 runs are finished already" in again.stderr
    assert not session.exists(), "no Ray starts, and yet what a killed sweep has left goes"
    assert board(tmp_path, STORE) == before
    assert {row["defense"].partition("(")[0] for row in document["rows"]} == {
        "fedavg",
        "median",
        "invariant",
    }
    assert len(document["runs"]) == 12, (
        "four specs, FedAvg under attack, and the dormant twin under each defense, for two seeds"
    )


@pytest.mark.timeout(900)
def test_an_interrupted_and_a_killed_sweep_go_on_and_give_the_same_bytes(
    tmp_path: Path, space: str
) -> None:
    # trials of more than a second, so that the kill hits some
    slow = SPACE.replace("rounds=6", "rounds=100").replace("range(2)", "range(1)")
    (tmp_path / space).write_text(slow)
    code, said = signaled(tmp_path, space, signal.SIGTERM)
    assert code == 130 and "the same command goes on from there" in said, said
    assert len(said.splitlines()) < 12, f"no trace of the signal:\n{said}"
    assert "SIGTERM received" not in said, said
    store = tmp_path / STORE
    assert statuses(store) == {"FINISHED", "KILLED"}
    code, said = signaled(tmp_path, space, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert written_ahead(store / "mlflow.db") == of_one_machine(tmp_path)
    assert "RUNNING" in statuses(store)
    looked = subprocess.run(
        command("leaderboard", "--experiment", "little"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "interrupted, nobody works on " in looked.stderr
    assert "RUNNING" not in statuses(store)
    found = sweep(tmp_path, space)
    assert "6/6 done" in found.stderr
    assert board(tmp_path, STORE) == by_hand.whole(slow).board
    assert not written_ahead(store / "mlflow.db")
    assert not list((store / "checkpoints").glob("*.pt"))


@pytest.mark.slow  # two sweeps on a small disk; tests/test_cli.py shows the same of a run
@pytest.mark.timeout(900)
def test_a_disk_that_fills_up_in_mid_sweep_is_said_and_the_next_command_gives_the_same_bytes(
    tmp_path: Path, space: str
) -> None:
    (tmp_path / space).write_text(SPACE.replace("rounds=6", "rounds=150"))
    sweep(tmp_path, space, "--store", "whole")
    small = tmp_path / "small"
    small.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(small)):
        with subprocess.Popen(
            command("sweep", space, "--store", "small/s"),
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            deadline = time.monotonic() + 240
            while time.monotonic() < deadline and finished(small / "s") < 2:
                time.sleep(0.2)
            filler = (small / "filler").open("wb", buffering=0)
            with filler, suppress(OSError):
                while True:
                    filler.write(bytes(1024))
            _, said = process.communicate()
        assert process.returncode == 1, said
        assert "trained but not stored" in said
        assert "Traceback" not in said
        assert len(said.splitlines()) < 25, said
        (small / "filler").unlink()
        assert "12/12 done" in sweep(tmp_path, space, "--store", "small/s").stderr
        assert board(tmp_path, "small/s") == board(tmp_path, "whole")


def signaled(folder: Path, space: str, number: signal.Signals) -> tuple[int, str]:
    """A sweep, two trials at a time, that is sent a signal after one more run is finished and while
    others run: its exit code and what it said.
    """
    store, log = folder / STORE, folder / "log"
    before = finished(store)
    with log.open("w") as stream:
        process = subprocess.Popen(
            command("sweep", space, "--max-concurrent", "2"),
            cwd=folder,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and (
            finished(store) <= before or "RUNNING" not in trials(store)
        ):
            time.sleep(0.1)
        os.kill(process.pid, number)
        process.wait()
    assert finished(store) < 6, log.read_text()
    return process.returncode, log.read_text()


def trials(store: Path, kind: str = "trial") -> set[str]:
    """The states of the store's runs, as MLflow shows them."""
    where = "WHERE key = 'backstop.kind' AND value LIKE ?"
    with closing(sqlite3.connect(store / "mlflow.db")) as connection:
        found = connection.execute(
            f"SELECT status FROM runs JOIN tags USING (run_uuid) {where}", [kind]
        )
        return {status for (status,) in found}


def statuses(store: Path) -> set[str]:
    """The states of the sweep's run and of the experiments' runs."""
    return trials(store, "%")


def finished(store: Path) -> int:
    """Runs whose model has been stored."""
    return len(list(store.glob("mlartifacts/*/*/artifacts/model.safetensors")))


@pytest.mark.timeout(600)
def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, space: str) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "broken.py").write_text(BROKEN)
    info = tmp_path / "plugins" / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[backstop.defenses]\nbroken = broken:broken\n")
    text = SPACE.replace('"median", "invariant"', '"median", "broken"').replace(
        "range(2)", "range(1)"
    )
    (tmp_path / space).write_text(text)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(tmp_path / "plugins"), os.environ.get("PYTHONPATH", "")]
        ),
    }
    found = subprocess.run(
        command("sweep", space, "--store", "s"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert found.returncode == 1, found.stderr
    reason = "defense broken: round 1: RuntimeError: the defense broke (broken.py:10)"
    assert f"2 runs failed: {reason}" in found.stderr  # under the attack and its clean twin
    tries = (tmp_path / "plugins" / "tries").read_text().splitlines()
    assert len(tries) == 2, "what a plug-in raises it would raise again: one for each run with it"
    assert "median" in found.stdout
    from backstop.platform.results.tracking.runs import read_runs
    from backstop.platform.results.tracking.store import locate_store

    runs = read_runs(locate_store(tmp_path / "s"), "little", status=None)
    assert sorted(run.status for run in runs) == ["FAILED"] * 2 + ["FINISHED"] * 4


@pytest.mark.slow  # a minute of Ray; tests/test_search.py shows the same without it
@pytest.mark.timeout(600)
def test_a_search_is_the_same_with_one_and_with_two_trials_at_a_time(tmp_path: Path) -> None:
    small = ["--trials", "6", "--set", "rounds=4", "--set", "local_epochs=1", "--json"]
    one = sweep(tmp_path, "tune_invariant", "--store", "one", "--max-concurrent", "1", *small)
    two = sweep(tmp_path, "tune_invariant", "--store", "two", "--max-concurrent", "2", *small)
    first, second = json.loads(one.stdout), json.loads(two.stdout)
    assert len(first["searches"][0]["trials"]) == 6
    assert first["searches"][0]["confirmed"]
    assert first == second
    again = sweep(tmp_path, "tune_invariant", "--store", "two", *small)
    assert json.loads(again.stdout) == first
    assert "finished already" in again.stderr
