"""The runs of a search space without a sweep: one after another in this process, and stored."""

from __future__ import annotations

from contextlib import chdir
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from backstop.platform import cli
from backstop.platform.contract import Record, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.log import Log
from backstop.platform.results.tracking.store import locate_store
from backstop.platform.rounds.checkpoint import Checkpoint
from backstop.platform.rounds.finals import final
from backstop.platform.sweeps.overrides import with_overrides
from backstop.platform.sweeps.plan import distinct, load_space
from backstop.platform.sweeps.twins import with_twins


class Whole(NamedTuple):
    """How a sweep ends that nothing has happened to."""

    board: bytes
    ids: list[str]  # of its finished trials, sorted


def planned(file: str) -> list[Spec]:
    """What a sweep of the space in the file runs."""
    specs = with_overrides(load_space(file), {}, None, print)
    assert isinstance(specs, list)
    return with_twins(distinct(specs))


def done(spec: Spec, folder: Path, checkpoints: Path) -> tuple[Experiment, list[Record]]:
    """A trained experiment, kept in its checkpoint."""
    experiment = Experiment(spec, folder / "data", "cpu")
    records = [record for _ in range(spec.rounds) if (record := experiment.round()) is not None]
    Checkpoint(checkpoints, spec.id).save(experiment.saved(records))
    return experiment, records


def stored(store: str, file: str, folder: Path) -> None:
    """The runs of a space in the experiment ``little``."""
    place = locate_store(Path(store))
    experiment = open_experiment(place, "little")
    for spec in planned(file):
        made, records = done(spec, folder, folder / "kept")
        log = Log(place, experiment, spec, origin=made.origin)
        for record in records:
            log.log(record)
        assert log.finish(final(records))


def board(store: str) -> bytes:
    """The leaderboard of the experiment ``little``."""
    return Path(store, "leaderboards", "little", "leaderboard.json").read_bytes()


@cache
def whole(text: str) -> Whole:
    """The leaderboard and the runs of a space, of which this is the file."""
    with TemporaryDirectory() as folder, chdir(folder):
        Path("little.py").write_text(text)
        stored("whole", "little.py", Path(folder))
        assert cli.main(["leaderboard", "--experiment", "little", "--store", "whole"]) == 0
        return Whole(board("whole"), sorted(spec.id for spec in planned("little.py")))
