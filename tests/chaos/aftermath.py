"""What has to hold after a sweep, whatever has happened to it: the leaderboard has the bytes of the
undisturbed one, no run is lost, none doubled, none RUNNING, and nothing is left behind.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.chaos.command import Command
from tests.chaos.processes import open_elsewhere
from tests.chaos.stored import stored_runs

EVERYBODYS = Path("/tmp/ray")  # where Rays keep their files that have no folder of their own
ENDS_WITHIN_S = 30.0  # that Ray's processes take to end after their driver


class Undisturbed(NamedTuple):
    """How a sweep ends that nothing has happened to."""

    board: bytes
    ids: list[str]  # of its finished trials, sorted


class Before(NamedTuple):
    """What was there before the sweep began."""

    files: frozenset[Path]  # in shared memory, and sessions of everybody's Rays

    @classmethod
    def now(cls, command: Command) -> Before:
        return cls(frozenset([*command.memory.iterdir(), *EVERYBODYS.glob("session_*")]))


def board(command: Command) -> bytes:
    """The leaderboard that the sweep has written."""
    (written,) = command.store.glob("leaderboards/*/leaderboard.json")
    return written.read_bytes()


def trial_ids(command: Command) -> list[str]:
    """The ids of all trials in the store, doubled ones twice."""
    runs = stored_runs(command.database)
    return sorted(str(run.spec_id) for run in runs if run.kind == "trial")


def check(command: Command, before: Before, undisturbed: Undisturbed) -> None:
    """Check all of it."""
    said = command.log.read_text()
    assert command.codes[-1] == 0, said
    runs = stored_runs(command.database)
    assert trial_ids(command) == undisturbed.ids, "runs are lost or doubled"
    assert {run.status for run in runs if run.kind == "trial"} == {"FINISHED"}, runs
    assert "RUNNING" not in {run.status for run in runs}, runs
    assert "dissent" not in {run.kind for run in runs}, runs
    assert board(command) == undisturbed.board, said
    _check_processes(command)
    left = list(left_behind(command, before))
    assert not left, f"{left} are left; {said}"


def _check_processes(command: Command) -> None:
    deadline = time.monotonic() + ENDS_WITHIN_S
    while left := command.processes():
        assert time.monotonic() < deadline, f"processes are left: {left}"
        time.sleep(0.2)


def left_behind(command: Command, before: Before) -> Iterator[Path]:
    """Files that a sweep has left in temporary folders, in shared memory and of itself in its
    store; Ray's own folder stays, empty.
    """
    rays = command.temporary / "ray"
    yield from (path for path in command.temporary.rglob("*") if path != rays)
    yield from (command.store / "ray").glob("*")  # records of private Rays
    yield from (command.store / "checkpoints").glob("*")
    yield from command.store.glob("mlflow.db-*")  # the database is whole by itself
    for driver in command.drivers:  # Ray names a session by the process
        yield from set(EVERYBODYS.glob(f"session_*_{driver}")) - before.files
    for path in set(command.memory.iterdir()) - before.files:
        if not open_elsewhere(path):
            yield path
