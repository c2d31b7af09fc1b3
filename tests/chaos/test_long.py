"""The long form: at least a hundred disturbances of every kind.

``BACKSTOP_CHAOS_SEED`` draws others; ``BACKSTOP_CHAOS_TABLE`` names a file for the table of what
has happened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.chaos.aftermath import Before, check
from tests.chaos.command import Command, temporary_folder
from tests.chaos.disk import small_disk
from tests.chaos.disturbances import (
    ACTORS,
    DISK,
    PROCESSES,
    TRACKING,
    Disturbance,
    Surroundings,
    drawn,
)
from tests.chaos.series import disturb
from tests.chaos.shared_memory import own_memory
from tests.chaos.spaces import grid, search
from tests.chaos.tally import Tally
from tests.chaos.tracking import DATABASE, tracking
from tests.chaos.undisturbed import undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.xdist_group("ray")]
SEED = int(os.environ.get("BACKSTOP_CHAOS_SEED", "0"))
AT_LEAST = 100
AT_A_TIME = 12  # disturbances of one sweep, at most
SMALL, LARGE = (
    grid(rounds=100),
    grid(rounds=250),
)  # a run with no checkpoint in between, and several
SEARCH = search(rounds=100)
GUARDED = ("--trial-minutes", "30")  # a process beside each trial watches it
ON_ACTORS = ("--client-actors", "2", "--max-concurrent", "1")
PATIENCE = {"BACKSTOP_PATIENCE": "60"}
WITHOUT_WARDEN = [kind for kind in PROCESSES if "warden" not in kind]


class Series(NamedTuple):
    """Disturbances of some kinds, and the sweeps that they happen to."""

    space: str
    kinds: Sequence[str]
    number: int
    options: Sequence[str] = ()
    needs: str = ""  # what the store is on: a tracking server, a small disk


SERIES = {
    "small runs": Series(SMALL, [*PROCESSES], 22, GUARDED),
    "large runs": Series(LARGE, [*PROCESSES], 22, GUARDED),
    "client actors": Series(SMALL, [*ACTORS, *WITHOUT_WARDEN], 24, ON_ACTORS),
    "a search": Series(SEARCH, WITHOUT_WARDEN, 16),
    "a tracking server": Series(
        SMALL,
        [*TRACKING, "kill -9 a trial", "kill -9 the driver", "SIGTERM", "kill -9 the raylet"],
        16,
        needs="tracking server",
    ),
    "a small disk": Series(
        SMALL,
        [*DISK, "kill -9 a trial", "kill -9 the driver"],
        12,
        needs="disk",
    ),
}


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    """What has happened in this file."""
    counted = Tally()
    yield counted
    counted.write()


@pytest.mark.parametrize("name", SERIES)
def test_a_series_changes_no_byte_and_leaves_nothing_behind(
    name: str, tmp_path: Path, tally: Tally
) -> None:
    series = SERIES[name]
    waiting = list(drawn(SEED + list(SERIES).index(name), series.kinds, series.number))
    sweeps = 0
    while waiting:
        assert sweeps < 2 * series.number, f"no sweep has a moment for {waiting}"
        folder = tmp_path / str(sweeps)
        folder.mkdir()
        commands, happened = _one_sweep(series, folder, waiting)
        tally.add(name, commands, happened)
        sweeps += 1


def _one_sweep(
    series: Series, folder: Path, waiting: list[Disturbance]
) -> tuple[int, list[Disturbance]]:
    """Sweep under some of what waits, which is taken away, and check what comes out: how many
    commands it has taken, and what has happened.
    """
    whole = undisturbed(series.space)
    (folder / "little.py").write_text(series.space)
    now = waiting[:AT_A_TIME]
    with ExitStack() as held:
        around = _surroundings(series, folder, held)._replace(total=len(whole.ids))
        before = Before.now(around.command)
        happened = disturb(around, now)
        check(around.command, before, whole)
        waiting[:AT_A_TIME] = now
    return len(around.command.codes), happened


def _surroundings(series: Series, folder: Path, held: ExitStack) -> Surroundings:
    """What the sweep of a series runs on."""
    temporary = held.enter_context(temporary_folder())
    memory = held.enter_context(own_memory(temporary))
    if series.needs == "tracking server":
        behind = held.enter_context(tracking(folder))
        environment = {**PATIENCE, "MLFLOW_TRACKING_URI": behind.proxy.uri}
        command = Command(
            folder,
            temporary,
            series.options,
            database=DATABASE,
            environment=environment,
            memory=memory,
        )
        return Surroundings(command, 0, tracking=behind)
    if series.needs == "disk":
        disk = held.enter_context(small_disk(folder / "disk"))
        command = Command(
            folder,
            temporary,
            series.options,
            store="disk/store",
            database="disk/store/mlflow.db",
            memory=memory,
        )
        return Surroundings(command, 0, disk=disk)
    return Surroundings(Command(folder, temporary, series.options, memory=memory), 0)


def test_what_has_happened(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    """The table at the end of the long form."""
    with capsys.disabled():
        print(f"\n{tally.text()}")
    if set(tally.series) != set(SERIES):
        pytest.skip("only a part of the long form was run")
    assert tally.total >= AT_LEAST
