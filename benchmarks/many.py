"""What a sweep of many short trials costs beside the trials themselves:
``python benchmarks/many.py TRIALS [--seconds S] [--idle] [--asleep N] [--store STORE]``.

All trials are one small experiment under different seeds, with as many rounds as take about S
seconds on one thread. With ``--idle`` they have one round and sleep for S seconds while they are
evaluated: so do the trials of Ray's own test of its overhead, and other work on the machine hardly
matters.
Beside the sweep, Ray Tune's own scheduler with trials that only sleep as long (N of them), on the
same Ray version and cores. Prints a table and one JSON object:

* wall / (sum of the trials' own seconds / trials at once), from the command to the leaderboard;
* seconds between two trials of one process, at the beginning, in the middle and at the end;
* the driver's resident memory (MiB), likewise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from backstop.platform import cli
from backstop.platform.commands import live
from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.sweeps.queues import Finals
from backstop.platform.training.loading import data_folder

TRIAL = Spec(
    model=Part("logistic"),
    clients=10,
    per_round=5,
    malicious=0.0,
    rounds=1,
    eval_every=1000,
    optimizer=Part("sgd", {"lr": 0.1}),
)
SPACE = """
from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid

def many():
    return grid({trial!r}, seed=range({trials}))
"""
TESTED = 360  # samples in the test part of digits
PAUSE = '''"""A linear model that sleeps when it is evaluated."""

import math
import time
from typing import Annotated

from torch import nn

from backstop.platform.contract import Model
from backstop.platform.params import Range


class _Asleep(nn.Module):
    def __init__(self, inputs, classes, seconds):
        super().__init__()
        self.linear = nn.Linear(inputs, classes)
        self.seconds = seconds

    def forward(self, x):
        if not self.training:
            time.sleep(self.seconds * len(x))
        return self.linear(x.flatten(1))


def pause(*, seconds: Annotated[float, Range(0, 60), "for each sample"] = 1e-3) -> Model:
    """Linear, and late."""
    return lambda shape, classes: _Asleep(math.prod(shape), classes, seconds)
'''
LOOK_S = 1.0  # between two looks at the driver's memory
PARTS = 10  # of a sweep, of which the first, the middle and the last are told
SLEEPS = """
import sys, time
import ray
from ray import tune
seconds, trials = float(sys.argv[1]), int(sys.argv[2])
ray.init("local", num_cpus=int(sys.argv[3]), include_dashboard=False, log_to_driver=False)
started = time.perf_counter()
config = tune.TuneConfig(num_samples=trials, max_concurrent_trials=int(sys.argv[3]))
def sleep(config):
    time.sleep(seconds)
    return {"slept": seconds}
tune.Tuner(sleep, tune_config=config, run_config=tune.RunConfig(verbose=0)).fit()
print("wall", time.perf_counter() - started)
"""


class Ended(NamedTuple):
    """The end of a trial as the driver is told it."""

    at: float  # seconds since the start
    seconds: float  # of the trial's own
    waited: float  # that its process was idle before it


def rounds_for(seconds: float) -> int:
    """How many rounds of the trial take so many seconds here."""
    experiment = Experiment(TRIAL.replace(rounds=10_000), data_folder(), "cpu")
    for _ in range(20):
        experiment.round()
    started = time.perf_counter()
    counted = 0
    while time.perf_counter() - started < min(seconds, 2.0):
        experiment.round()
        counted += 1
    return max(1, round(counted * seconds / (time.perf_counter() - started)))


def idling(seconds: float, folder: Path) -> Spec:
    """The trial with one round, whose two evaluations sleep for so many seconds together, by a
    model in the folder.
    """
    model = folder / "pause.py"
    model.write_text(PAUSE, encoding="utf-8")
    return TRIAL.replace(model=Part(str(model), {"seconds": seconds / 2 / TESTED}))


@contextmanager
def memory_watched() -> Iterator[list[float]]:
    """The resident memory (MiB) of this process, looked at again and again."""
    seen: list[float] = []
    done = threading.Event()

    def look() -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not done.wait(LOOK_S):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            seen.append(pages * page / 2**20)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def sweep(space: Path, store: Path) -> tuple[list[Ended], list[float], float]:
    """The trials in the order of their ends, the driver's memory, and the wall seconds."""
    ended: list[Ended] = []
    told = live.Watch.ended
    started = time.perf_counter()

    def note(watch: live.Watch, spec: Spec, finals: Finals | None, stored: bool) -> None:
        if finals is not None:
            at = time.perf_counter() - started
            ended.append(Ended(at, finals["seconds"], finals["waited"]))
        told(watch, spec, finals, stored)

    live.Watch.ended = note  # type: ignore[method-assign]
    try:
        with memory_watched() as memory:
            code = cli.main(["sweep", str(space), "--store", str(store), "--device", "cpu"])
    finally:
        live.Watch.ended = told  # type: ignore[method-assign]
    if code:
        raise BadInput(f"the sweep ended with exit code {code}")
    return ended, memory, time.perf_counter() - started


def sleeping(seconds: float, trials: int, at_once: int) -> float:
    """Wall seconds of Ray Tune with trials that sleep; NaN where it fails, and its last words."""
    line = [sys.executable, "-c", SLEEPS, str(seconds), str(trials), str(at_once)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"Ray Tune asleep: {done.stderr.strip()[-400:]}", file=sys.stderr)
        return math.nan
    return float(done.stdout.rpartition("wall")[2])


def parts(values: Sequence[float]) -> dict[str, float]:
    """The medians of the first, the middle and the last tenth."""
    length = max(1, len(values) // PARTS)
    middle = (len(values) - length) // 2
    return {
        "first": statistics.median(values[:length]),
        "middle": statistics.median(values[middle : middle + length]),
        "last": statistics.median(values[-length:]),
    }


def measure(
    trials: int,
    seconds: float,
    idle: bool,
    store: Path,
    at_once: int,
) -> dict[str, Any]:
    """All figures of a sweep of ours."""
    folder = store / "space"
    folder.mkdir(parents=True, exist_ok=True)
    space = folder / "many.py"
    trial = idling(seconds, folder) if idle else TRIAL.replace(rounds=rounds_for(seconds))
    text = SPACE.format(trial=trial, trials=trials)
    space.write_text(text, encoding="utf-8")
    ended, memory, wall = sweep(space, store)
    own = sum(trial.seconds for trial in ended)
    return {
        "trials": len(ended),
        "rounds": trial.rounds,
        "seconds of a trial": own / len(ended),
        "wall": wall,
        "ratio": wall / (own / at_once),
        "ratio without start and end": (ended[-1].at - ended[0].at)
        / (sum(trial.seconds for trial in ended[1:]) / at_once),
        "waited": parts([trial.waited for trial in ended]),
        "driver MiB": parts(memory),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Many short trials.")
    parser.add_argument("trials", type=int)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a trial")
    parser.add_argument("--idle", action="store_true", help="trials sleep instead of training")
    parser.add_argument("--asleep", type=int, help="trials of Ray Tune's own (default: as many)")
    parser.add_argument("--store", type=Path, help="a new store; else one that is thrown away")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        store = options.store or Path(temporary, "store")
        asleep = options.asleep or options.trials
        cores = os.cpu_count() or 1
        figures = measure(options.trials, options.seconds, options.idle, store, cores)
    for name, figure in figures.items():
        print(f"{name:28} {figure}", flush=True)
    mean = figures["seconds of a trial"]
    slept = sleeping(mean, asleep, cores) / (mean * asleep / cores)
    figures["ratio of Ray Tune asleep"] = slept
    print(f"{'ratio of Ray Tune asleep':28} {slept}")
    print(json.dumps(figures))
