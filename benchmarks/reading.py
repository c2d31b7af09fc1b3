"""How long it takes to read an experiment's runs back from MLflow, and whether twice the runs take
twice the time: ``python benchmarks/reading.py 1000 5000 50000``.

The runs are made up and written into MLflow's tables in bulk, with the parameters, tags and metrics
that real ones have and thirty evaluated rounds each; MLflow's own API would take minutes for them.
Every reading is done in a process of its own, three times; the least processor time counts, so that
other work on the machine does not.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from backstop.platform.contract import Spec
from backstop.platform.results.figures.cells import ROUND_METRICS
from backstop.platform.results.tracking.description import run_params, run_tags
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.runs import read_runs, with_curves
from backstop.platform.results.tracking.store import Store, locate_store, mlflow_client
from backstop.platform.rounds.origin import Origin
from backstop.platform.specs.part import to_chain

EXPERIMENT = "synthetic"
TRIES = 3
ROUNDS = 30  # that are evaluated
ATTACKS = ("badnets", "blended", "badnets+model_replacement(strength=5)", "dba+neurotoxin")
DEFENSES = ("fedavg", "median", "krum(f=2)", "norm_clip(norm=1)+median", "rlr")
BY_ROUND = ("clean_accuracy", "attack_success_rate", "train_loss", "robust_accuracy")
FINAL = (*BY_ROUND, "diverged", "attack_turns", "untriggered_target_rate", "best_accuracy")
COSTS = ("time/total_train_s", "time/total_aggregate_s", "memory/peak_aggregate_mib")
AT_ONCE = 1000  # runs that are written together


def specs(count: int) -> Iterator[Spec]:
    """So many different specs: attacks by defenses, then seeds."""
    for index in range(count):
        seed, pair = divmod(index, len(ATTACKS) * len(DEFENSES))
        attack, defense = divmod(pair, len(DEFENSES))
        yield Spec(
            attack=to_chain(ATTACKS[attack], "attack"),
            defense=to_chain(DEFENSES[defense], "defense"),
            seed=seed,
            rounds=ROUNDS,
        )


def write_store(folder: Path, count: int) -> None:
    """A store with so many finished runs."""
    import sqlalchemy
    from mlflow.store.tracking.dbmodels import models

    store = locate_store(folder)
    experiment = int(open_experiment(store, EXPERIMENT))
    engine = sqlalchemy.create_engine(store.uri)
    tables: dict[str, list[dict[str, Any]]] = {}
    with engine.begin() as connection:
        for index, spec in enumerate(specs(count), 1):
            for name, rows in _rows(spec, index, experiment).items():
                tables.setdefault(name, []).extend(rows)
            if index % AT_ONCE == 0 or index == count:
                for name, rows in tables.items():
                    connection.execute(getattr(models, name).__table__.insert(), rows)
                tables.clear()
    engine.dispose()


def _rows(
    spec: Spec,
    index: int,
    experiment: int,
) -> dict[str, list[dict[str, Any]]]:
    """The rows of a run in MLflow's tables."""
    run = f"{index:032x}"
    tags = run_tags(
        spec,
        space=EXPERIMENT,
        origin=Origin("cpu", "0" * 64, {"defense median": "1" * 64}, "2" * 64),
        parent=None,
    )
    last = [(f"final/{name}", 0.25, ROUNDS - 1) for name in FINAL]
    last += [(name, 1.5, ROUNDS - 1) for name in COSTS]
    curves = [
        (f"round/{name}", (index * step % 97) / 97, step)
        for name in BY_ROUND
        for step in range(ROUNDS)
    ]
    latest = last + [point for point in curves if point[2] == ROUNDS - 1]
    return {
        "SqlRun": [_run_row(run, index, experiment)],
        "SqlTag": _labels(run, tags),
        "SqlParam": _labels(run, run_params(spec)),
        "SqlMetric": [_metric(run, *point) for point in last + curves],
        "SqlLatestMetric": [_metric(run, *point) for point in latest],
    }


def _run_row(
    run: str,
    index: int,
    experiment: int,
) -> dict[str, Any]:
    return {
        "run_uuid": run,
        "name": f"run {index}",
        "status": "FINISHED",
        "start_time": index,
        "end_time": index + 1,
        "lifecycle_stage": "active",
        "artifact_uri": f"file:///nowhere/{run}",
        "experiment_id": experiment,
        "source_type": "LOCAL",
        "user_id": "nobody",
    }


def _labels(run: str, values: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "run_uuid": run,
            "key": key,
            "value": value,
        }
        for key, value in values.items()
    ]


def _metric(
    run: str,
    key: str,
    value: float,
    step: int,
) -> dict[str, Any]:
    return {
        "run_uuid": run,
        "key": key,
        "value": value,
        "timestamp": step,
        "step": step,
        "is_nan": False,
    }


def read(store: Store, expected: int) -> tuple[float, float, float]:
    """Processor seconds of the runs and of their curves, and the peak memory in MiB."""
    mlflow_client(store.uri)  # to import MLflow takes as long whatever is read
    start = time.process_time()
    runs = read_runs(store, EXPERIMENT)
    between = time.process_time()
    curved = with_curves(store, runs, [run.id for run in runs], ROUND_METRICS)
    end = time.process_time()
    points = sum(len(curve) for run in curved for curve in run.curves.values())
    if len(curved) != expected or points != expected * len(ROUND_METRICS) * ROUNDS:
        raise SystemExit(f"{len(curved)} of {expected} runs were read, or not all of their rounds")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return between - start, end - between, memory


def _measured(folder: Path, count: int) -> tuple[float, ...]:
    """The least of several readings, each in a process of its own."""
    tries = []
    for _ in range(TRIES):
        done = subprocess.run(
            [sys.executable, __file__, "--read", str(folder), str(count)],
            capture_output=True,
            text=True,
            check=True,
        )
        tries.append(tuple(map(float, done.stdout.split())))
    return tuple(map(min, zip(*tries, strict=True)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: a line for each number of runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("runs", type=int, nargs="+", help="how many runs, e.g. 1000 5000 50000")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.read:
        print(*read(locate_store(options.read), options.runs[0]))
        return
    print("| runs | runs read, s | two metrics by round, s | ms a run | peak memory, MiB |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for count in options.runs:
        with tempfile.TemporaryDirectory() as folder:
            write_store(Path(folder), count)
            runs, curves, memory = _measured(Path(folder), count)
        each = 1000 * (runs + curves) / count
        print(f"| {count:,} | {runs:.2f} | {curves:.2f} | {each:.2f} | {memory:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
