"""Rounds of Backstop, timed from outside: ``python benchmarks/ours.py image|table|attacked
[--rounds N] [--actors K | --threads K]``.

Prints one JSON object: seconds, trained samples and test accuracy of each round, and what
Backstop's own clock says about its parts.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import ExitStack
from typing import Any

from work import ATTACKED, CLEAN

from backstop.platform.contract import Spec
from backstop.platform.experiment import Experiment
from backstop.platform.training import loading, partition
from backstop.platform.workers.actors import OnActors
from backstop.platform.workers.clients import Clients, InProcess
from backstop.platform.workers.connection import local_ray


def measure(spec: Spec, clients: Clients) -> dict[str, Any]:
    """All rounds of an experiment; the start is not timed here."""
    experiment = Experiment(spec, loading.data_folder(), "cpu", clients)
    report: dict[str, list[float]] = {"seconds": [], "samples": [], "accuracy": []}
    stages: dict[str, list[float]] = {}
    for number in range(spec.rounds):
        started = time.perf_counter()
        record = experiment.round()
        report["seconds"].append(time.perf_counter() - started)
        cohort = partition.cohort(
            clients=spec.clients,
            per_round=spec.per_round,
            selection=spec.selection,
            malicious=experiment.built.malicious,
            seed=spec.seed,
            round=number,
        )
        report["samples"].append(
            sum(len(experiment.built.shards[client]) for client in cohort.tolist())
        )
        assert record is not None  # every round is due
        report["accuracy"].append(record.metrics["round/clean_accuracy"])
        for name, seconds in record.costs.items():
            if name.startswith("time/"):
                stage = name.removeprefix("time/").removesuffix("_s")
                stages.setdefault(stage, []).append(seconds)
    moved = float((experiment.state.params - experiment.built.net.params).norm())
    experiment.close()
    return {**report, "stages": stages, "moved": moved}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Rounds of Backstop.")
    parser.add_argument("work", choices=[*CLEAN, "attacked"])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--actors", type=int, default=0, help="client actors; 0: this process")
    parser.add_argument("--threads", type=int, default=1, help="threads of this process")
    options = parser.parse_args()
    spec = (CLEAN | {"attacked": ATTACKED})[options.work].replace(rounds=options.rounds)
    with ExitStack() as stack:
        if options.actors:
            stack.enter_context(local_ray(None))
        workers: Clients = (
            OnActors(options.actors) if options.actors else InProcess(options.threads)
        )
        found = measure(spec, workers)
    print(json.dumps(found))
