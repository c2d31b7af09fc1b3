"""What lies about and nobody needs any more: found, said, and removed when asked.

A checkpoint is needed as long as some experiment of the store has its run planned or begun and not
finished. Warm-ups are shared by all stores of a user, so only their age tells.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from backstop.platform import vault
from backstop.platform.results.tracking import drivers
from backstop.platform.results.tracking.runs import read_runs
from backstop.platform.results.tracking.store import Store, is_new, mlflow_client, refusing
from backstop.platform.results.tracking.sweeps import drivers_home, read_plan
from backstop.platform.workers import sessions

UNUSED_DAYS = 30  # after which a warm-up is taken for forgotten
DAY = 24 * 60 * 60.0
TUNE = "tune"  # Ray Tune's own state in the store, which is never read


class Litter(NamedTuple):
    """Things of one kind that can go."""

    what: str
    pieces: int
    size: int  # bytes
    remove: Callable[[], None]


def find_litter(store: Store, folder: Path) -> list[Litter]:
    """All that can go of a store and its ``--store`` folder, kind by kind; kinds of which there is
    nothing are left out.
    """
    kinds = [_sessions(folder), _warm_ups()]
    if not drivers.any_at_work(drivers_home(store, folder)):
        kinds += [_checkpoints(store, folder), _tune(folder)]
    return [kind for kind in kinds if kind.pieces]


def _sessions(folder: Path) -> Litter:
    """The files of private Rays whose sweeps were killed."""
    dead = sessions.leftovers(folder)

    def remove() -> None:
        for leftover in dead:
            leftover.remove()

    size = sum(leftover.size for leftover in dead)
    return Litter("Ray sessions of killed sweeps", len(dead), size, remove)


def _warm_ups() -> Litter:
    """Warm-ups that were not read for long; they are made again when they are needed."""
    before = time.time() - UNUSED_DAYS * DAY
    folder = vault.cache() / "warm"
    there = folder.glob("*.pt") if isinstance(folder, Path) else ()  # a bucket has its own rules
    old = [path for path in there if max(path.stat().st_atime, path.stat().st_mtime) < before]
    return _files(f"warm-ups not used for {UNUSED_DAYS} days", old)


def _checkpoints(store: Store, folder: Path) -> Litter:
    """Checkpoints of runs that are finished wherever they were planned or begun."""
    there = sorted((folder / "checkpoints").glob("*.pt"))
    gone = removable(store) if there else set()
    return _files("checkpoints of finished runs", [path for path in there if path.stem in gone])


def _files(what: str, paths: list[Path]) -> Litter:
    def remove() -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    return Litter(what, len(paths), sum(path.stat().st_size for path in paths), remove)


def _tune(folder: Path) -> Litter:
    """What Ray Tune has written of sweeps that are over."""
    path = folder / TUNE
    count = len(list(path.iterdir())) if path.is_dir() else 0
    size = sessions.folder_size(path)

    def remove() -> None:
        shutil.rmtree(path, ignore_errors=True)

    return Litter("entries of Ray Tune's own state", count, size, remove)


def removable(store: Store) -> set[str]:
    """Ids of specs that are finished in some experiment and left unfinished in none."""
    finished: set[str] = set()
    needed: set[str] = set()
    for name in _experiments(store):
        runs = read_runs(store, name, status=None)
        done = {run.id for run in runs if run.status == "FINISHED"}
        finished |= done
        needed |= ({run.id for run in runs} | read_plan(store, name).keys()) - done
    return finished - needed


def _experiments(store: Store) -> Iterator[str]:
    """The names of the store's experiments."""
    if is_new(store):
        return
    with refusing(store):
        for experiment in mlflow_client(store.uri).search_experiments():
            yield experiment.name
