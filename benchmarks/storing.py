"""How long it takes to store a finished run, and whether what is stored is whole:
``python -m benchmarks.storing [--seeds 3] [--tries 1] [--server-workers 2]``.

The runs of the quickstart, of thirty rounds that are all evaluated, are trained once and then kept
in turns in

* a local store: a database file, written ahead as during a sweep;
* ``mlflow server`` on SQLite;
* ``mlflow server`` on PostgreSQL;

the artifacts each time in a folder of this machine; by one process and by two side by side, each
time into a new experiment, on the way that a sweep's trial takes at its end: the log is opened, all
of the run is sent, its checkpoint is dropped. A process has imported MLflow and asked the store for
the experiment before the clock starts.

Then everything is read from the tables and the folders themselves, and the leaderboards through the
stores. It exits with 1 and says why where a run is not there once, finished, with the parameters,
the figures of every round, the model and spec.json that were sent, or where the three leaderboards
are not the same bytes. The servers need Debian's ``postgresql`` and the extra ``cluster``.

Prints a table: milliseconds of a run with the shortest and the longest, runs a second with the
slowest and the fastest try, and milliseconds of the processor a run, of those who send and of the
server with its database.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import reduce
from itertools import product
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

from backstop.platform.contract import Spec
from backstop.platform.experiment import Experiment
from backstop.platform.results.leaderboard.boards import rank_runs
from backstop.platform.results.leaderboard.document import encode_document
from backstop.platform.results.tracking import drivers, journal
from backstop.platform.results.tracking.description import run_params
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.log import MODEL
from backstop.platform.results.tracking.runs import (
    TRIALS,
    Run,
    read_runs,
    with_curves,
)
from backstop.platform.results.tracking.store import (
    Store,
    locate_store,
    mlflow_client,
    search_runs,
)
from backstop.platform.results.tracking.sweeps import close_parent, open_parent, write_plan
from backstop.platform.rounds.checkpoint import Checkpoint, Saved, saved_ids
from backstop.platform.rounds.costs import add, totals
from backstop.platform.rounds.finals import final
from backstop.platform.sweeps.plan import SweepPlan, make_plan, run_words
from backstop.platform.sweeps.session import Destination, store_run
from backstop.platform.training.loading import data_folder
from benchmarks.servers import TrackingServer, postgres, processor_s, started

ROUNDS = 30
LOCAL, ON_SQLITE, ON_POSTGRES = "local SQLite file", "server on SQLite", "server on PostgreSQL"
PROCESSES = (1, 2)  # that store side by side
MEETING_S = 300.0  # that a process waits for the others to be ready


class Stored(NamedTuple):
    """When a run was stored, by a clock that all processes of the machine share."""

    began: float
    ended: float

    @property
    def ms(self) -> float:
        """How long that took."""
        return 1e3 * (self.ended - self.began)


class Place(NamedTuple):
    """A store, and what it keeps its runs in."""

    store: Store
    tables: Store  # the database itself
    artifacts: Path
    servers: tuple[int, ...] = ()  # processes

    @property
    def processor_s(self) -> float:
        """Seconds that its servers have taken so far."""
        return sum(map(processor_s, self.servers))


class Try(NamedTuple):
    """All runs, stored once."""

    stored: list[Stored]
    processor_s: float  # of the processes that sent them
    server_s: float = 0.0  # of the servers

    @property
    def a_second(self) -> float:
        """Runs a second, from the first one's beginning to the last one's end."""
        first, last = min(run.began for run in self.stored), max(run.ended for run in self.stored)
        return len(self.stored) / (last - first)


class Trained(NamedTuple):
    """Runs whose rounds are all done, each in its checkpoint."""

    plan: SweepPlan
    checkpoints: Path

    def saved(self, spec: Spec) -> Saved:
        """What is to be stored of a run."""
        saved = Checkpoint(self.checkpoints, spec.id).read()
        assert saved is not None
        return saved


def train(folder: Path, seeds: int) -> Trained:
    """Train the runs."""
    changes = {"rounds": ROUNDS, "eval_every": 1}
    plan = make_plan("quickstart", changes=changes, seeds=range(seeds))
    folder.mkdir()
    for spec in plan.specs:
        experiment = Experiment(spec, data_folder(), "cpu")
        records = [record for _ in range(ROUNDS) if (record := experiment.round()) is not None]
        Checkpoint(folder, spec.id).save(experiment.saved(records))
    return Trained(plan, folder)


@contextmanager
def places(folder: Path, server_workers: int) -> Iterator[Mapping[str, Place]]:
    """The three stores, with their servers, while the block lasts."""
    local = locate_store(folder / "local")
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        stores = {LOCAL: Place(local, local, Path(local.artifacts))}
        tables = {ON_SQLITE: f"sqlite:///{folder / 'server.db'}", ON_POSTGRES: database.uri}
        for name, uri in tables.items():
            own = folder / name
            own.mkdir()
            artifacts = own / "artifacts"
            server = TrackingServer(own, uri, str(artifacts), workers=server_workers)
            stack.enter_context(started(server))
            serving = [server.process, database.process if name == ON_POSTGRES else None]
            processes = tuple(process.pid for process in serving if process is not None)
            stores[name] = Place(Store(server.uri, ""), Store(uri, ""), artifacts, processes)
        yield stores


def store_all(
    place: Place,
    experiment: str,
    trained: Trained,
    folder: Path,
    processes: int,
) -> Try:
    """Store all runs into a new experiment as a sweep does."""
    store, plan, specs = place.store, trained.plan, trained.plan.specs
    checkpoints = folder / "checkpoints"
    shutil.copytree(trained.checkpoints, checkpoints)
    with journal.settling(store), drivers.at_work(folder) as driver:
        known = open_experiment(store, experiment)
        journal.write_ahead(store)
        parent = open_parent(store, known, plan.title, driver=driver)
        write_plan(store, parent, {spec.id: run_words(spec) for spec in specs})
        destination = Destination(
            store,
            known,
            checkpoints,
            driver,
            space=plan.title,
            parent=parent,
        )
        shares = [specs[first::processes] for first in range(processes)]
        before = place.processor_s
        made = _together(destination, shares)
        server_s = place.processor_s - before
        close_parent(store, parent, "FINISHED")
    waiting = saved_ids(checkpoints)
    if waiting:
        raise SystemExit(f"{store.uri}: {len(waiting)} runs are not stored")
    stored = [run for part in made for run in part.stored]
    return Try(stored, sum(part.processor_s for part in made), server_s)


def _together(destination: Destination, shares: Sequence[Sequence[Spec]]) -> list[Try]:
    """Each share is stored by a process of its own; they begin together."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(len(shares))
    with ProcessPoolExecutor(
        len(shares),
        mp_context=context,
        initializer=_get_ready,
        initargs=(ready,),
    ) as pool:
        return list(pool.map(_store_share, [destination] * len(shares), shares))


class _Own:
    """What a process is given as it starts."""

    ready: Barrier


def _get_ready(ready: Barrier) -> None:
    torch.set_num_threads(1)
    _Own.ready = ready


def _store_share(destination: Destination, specs: Sequence[Spec]) -> Try:
    """Store runs one after another, once all processes are ready."""
    checkpoints = [Checkpoint(destination.checkpoints, spec.id) for spec in specs]
    read = [checkpoint.read() for checkpoint in checkpoints]
    mlflow_client(destination.store.uri).get_experiment(destination.experiment)
    stored = []
    _Own.ready.wait(MEETING_S)
    processor = time.process_time()
    for spec, checkpoint, saved in zip(specs, checkpoints, read, strict=True):
        assert saved is not None
        began = time.perf_counter()
        log = destination.open_log(spec, saved.origin, saved.records)
        outcome = store_run(log, checkpoint, saved.records, saved.model)
        stored.append(Stored(began, time.perf_counter()))
        if not outcome.stored or outcome.finding:
            raise SystemExit(f"{destination.store.uri}: {outcome.reason or outcome.finding}")
    return Try(stored, time.process_time() - processor)


def faults(place: Place, experiment: str, trained: Trained) -> list[str]:
    """What is not as it was sent, a line for each run; empty where all is."""
    known = open_experiment(place.tables, experiment)
    items = list(search_runs(place.tables, known, TRIALS))
    counts = Counter(item.data.tags["backstop.id"] for item in items)
    specs = {spec.id: spec for spec in trained.plan.specs}
    if counts != Counter(specs.keys()):
        others = sorted(key for key in specs.keys() | counts if counts[key] != (key in specs))
        return [f"{key} is there {counts[key]} times" for key in others]
    params = {item.data.tags["backstop.id"]: item.data.params for item in items}
    stores = []
    sent = {key: trained.saved(spec) for key, spec in specs.items()}
    metrics = sorted({name for saved in sent.values() for name in _curves(saved)})
    for run in with_curves(place.tables, read_runs(place.tables, experiment), specs, metrics):
        spec = specs.pop(run.id)
        wrong = [*_differing(place, run, sent[run.id])]
        wrong += ["parameters"] * (params[run.id] != run_params(spec))
        stores += [f"{run.id}: other {', '.join(wrong)}"] * bool(wrong)
    return stores + [f"{key} is not finished" for key in specs]


def _differing(place: Place, run: Run, sent: Saved) -> Iterator[str]:
    """What a stored run does not have as it was sent."""
    if run.metrics != _finite(final(sent.records)):
        yield "final figures"
    if run.costs != totals(reduce(add, (record.costs for record in sent.records), {})):
        yield "costs"
    if {name: [*curve] for name, curve in run.curves.items() if curve} != _curves(sent):
        yield "rounds"
    files = {file.name: file for file in place.artifacts.glob(f"**/{run.run_id}/artifacts/*")}
    if files.keys() != {MODEL, "spec.json"}:
        yield "artifacts"
        return
    model = load_file(files[MODEL])
    same = [torch.equal(tensor, sent.model[name]) for name, tensor in model.items()]
    if model.keys() != sent.model.keys() or not all(same):
        yield "model"
    if json.loads(files["spec.json"].read_text(encoding="utf-8"))["id"] != run.id:
        yield "spec.json"


def _curves(sent: Saved) -> dict[str, list[tuple[int, float]]]:
    """Metric → (round, value), as far as it is a number."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in sent.records:
        for name, value in _finite({**record.metrics, **record.costs}).items():
            curves.setdefault(name, []).append((record.round, value))
    return curves


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def board(store: Store, experiment: str) -> str:
    """The leaderboard as its file has it."""
    return encode_document(rank_runs(store, experiment, read_runs(store, experiment)).document)


def check(stores: Mapping[str, Place], experiment: str, trained: Trained) -> None:
    """Exit where a store does not hold what was sent, or leaderboards differ."""
    wrong = {name: faults(place, experiment, trained) for name, place in stores.items()}
    for name, lines in wrong.items():
        if lines:
            raise SystemExit("\n  ".join([f"{name}, {experiment}:", *lines]))
    texts = {board(place.store, experiment) for place in stores.values()}
    if len(texts) > 1:
        raise SystemExit(f"{experiment}: the leaderboards differ")


def spread(values: Iterable[float], digits: int) -> str:
    """Median (least to most)."""
    known = sorted(values)
    middle, least, most = statistics.median(known), known[0], known[-1]
    return f"{middle:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def _row(name: str, processes: int, tries: Sequence[Try]) -> str:
    each = [run.ms for attempt in tries for run in attempt.stored]
    speed = spread([attempt.a_second for attempt in tries], 2)
    here = 1e3 * sum(attempt.processor_s for attempt in tries) / len(each)
    there = 1e3 * sum(attempt.server_s for attempt in tries) / len(each)
    processor = f"{here:.0f} + {there:.0f}"
    return f"| {name} | {processes} | {spread(each, 0)} | {speed} | {processor} |"


def measure(
    folder: Path,
    *,
    seeds: int,
    tries: int,
    server_workers: int,
) -> None:
    """Store, check and print."""
    trained = train(folder / "trained", seeds)
    first = trained.saved(trained.plan.specs[0])
    points = sum(map(len, _curves(first).values()))
    print(f"{len(trained.plan.specs)} runs of {ROUNDS} rounds, {points} points each", flush=True)
    made: dict[tuple[str, int], list[Try]] = {}
    with places(folder, server_workers) as stores:
        for turn, processes in product(range(tries), PROCESSES):
            experiment = f"{processes} at once {turn}"
            for name, place in stores.items():
                load = os.getloadavg()[0]
                own = folder / f"{name} {experiment}"
                attempt = store_all(place, experiment, trained, own, processes)
                made.setdefault((name, processes), []).append(attempt)
                speed = f"{attempt.a_second:.2f} runs/s, load {load:.1f} before"
                print(f"{name}, {experiment}: {speed}", file=sys.stderr, flush=True)
            check(stores, experiment, trained)
    print("| store | processes | ms a run | runs/s | processor ms, here + server |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, processes in product(stores, PROCESSES):
        print(_row(name, processes, made[name, processes]))
    print("every run is there once, whole; the leaderboards of the three stores are equal bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Store finished runs.")
    parser.add_argument("--seeds", type=int, default=3, help="42 runs each")
    parser.add_argument("--tries", type=int, default=1, help="in turns")
    parser.add_argument(
        "--server-workers",
        type=int,
        default=2,
        help="processes of each server; 2 as in deploy/compose.yaml",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers end too
    with tempfile.TemporaryDirectory() as temporary:
        measure(
            Path(temporary),
            seeds=options.seeds,
            tries=options.tries,
            server_workers=options.server_workers,
        )
