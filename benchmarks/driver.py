"""What a sweep's driver takes for many runs, without the runs:
``python -m benchmarks.driver 1000 10000 100000``.

Every run ends at once, in a back end that trains nothing: what is left is the plan, the queue, the
notes of the sweep in a real store, the line on the terminal. What Ray Tune keeps of a trial and
what is read for the leaderboard are not in it (``benchmarks/many.py``, ``benchmarks/reading.py``).
Each number of runs is a process of its own. Prints a line for each:

* seconds until the first run could start: the plan, the store, the rehearsal;
* milliseconds of a run, in the first and the last tenth;
* resident memory (MiB) when the first run could start, and how much more (kB a run) at the end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from backstop.platform import storage
from backstop.platform.commands.live import Watch
from backstop.platform.results.tracking.store import locate_store
from backstop.platform.sweeps.backend import Observer, Task
from backstop.platform.sweeps.conduct import Site, conduct
from backstop.platform.sweeps.plan import make_plan
from backstop.platform.sweeps.queues import Queue
from backstop.platform.sweeps.session import Outcome
from backstop.platform.training.loading import data_folder
from benchmarks.many import SPACE, TRIAL

FINALS = (
    "clean_accuracy",
    "attack_success_rate",
    "robust_accuracy",
    "untriggered_target_rate",
    "train_loss",
    "best_accuracy",
    "start_accuracy",
    "attack_turns",
    "diverged",
)
COSTS = ("time/total_train_s", "time/total_aggregate_s", "memory/peak_aggregate_mib")
PARTS = 10


class AtOnce:
    """A back end in which every run ends when it starts."""

    name = "nothing"
    elsewhere = False

    def __init__(self) -> None:
        self.began = 0.0
        self.memory = 0.0  # when the first run could start
        self.ends: list[float] = []

    def check(self) -> None:
        """It can always start."""

    def start(self) -> AbstractContextManager[object]:
        """There is nothing to start."""
        return nullcontext()

    def run(self, queue: Queue, _: Task, observer: Observer) -> None:
        """End all that waits."""
        self.began, self.memory = time.perf_counter(), resident_mib()
        while queue.fill():
            waiting, queue.waiting = queue.waiting, []
            for spec in waiting:
                observer.started(spec)
                queue.ended(spec, _outcome(len(self.ends)))
                observer.ended(spec, queue.results[spec.id], stored=True)
                self.ends.append(time.perf_counter())


def _outcome(index: int) -> Outcome:
    """Figures that no other run has, as a run's own would be."""
    finals = {f"final/{name}": index + place / 16 for place, name in enumerate(FINALS)}
    costs = dict.fromkeys(COSTS, index / 16)
    return Outcome(finals, stored=True, run_id=f"{index:032x}", costs=costs)


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(runs: int, folder: Path) -> Mapping[str, float]:
    """The figures of one sweep."""
    space = folder / "many.py"
    space.write_text(SPACE.format(trial=TRIAL, trials=runs), encoding="utf-8")
    began = time.perf_counter()
    plan = make_plan(str(space))
    site = Site(
        store=locate_store(folder / "store"),
        folder=storage.locate(str(folder / "store")),
        experiment=plan.title,
        data=data_folder(),
        device="cpu",
    )
    backend = AtOnce()
    conduct(plan, site, backend, watch=lambda queue: Watch(plan.title, queue), say=print)
    ended = time.perf_counter()
    steps = [
        later - earlier
        for earlier, later in zip([backend.began, *backend.ends], backend.ends, strict=False)
    ]
    part = max(1, runs // PARTS)
    return {
        "runs": len(backend.ends),
        "first run after, s": backend.began - began,
        "first tenth, ms": 1e3 * statistics.mean(steps[:part]),
        "last tenth, ms": 1e3 * statistics.mean(steps[-part:]),
        "after the last run, s": ended - backend.ends[-1],
        "at the start, MiB": backend.memory,
        "more, kB a run": (resident_mib() - backend.memory) * 1024 / runs,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Runs that end at once.")
    parser.add_argument("runs", type=int, nargs="+")
    options = parser.parse_args()
    if len(options.runs) > 1:
        for count in options.runs:
            line = [sys.executable, "-m", "benchmarks.driver", str(count)]
            subprocess.run(line, check=True)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            figures = measure(options.runs[0], Path(temporary))
        print(" | ".join(f"{name} {value:.4g}" for name, value in figures.items()))
