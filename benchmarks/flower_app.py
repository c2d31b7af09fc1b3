"""The same federation with Flower's simulation engine, as its users write it; the model and the
local training are those of given.py.

``python benchmarks/flower_app.py FOLDER`` runs in an environment of its own (peers.py makes it) and
prints one JSON object: seconds, trained samples and test accuracy of each round. The server names
the client that each node plays, so that the cohorts are everybody's. Every client actor keeps all
samples staged, which spares Flower the usual data loading.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from given import Given, Report, hits, network, read, train
from torch import nn

FOLDER = Path(os.environ.get("BENCHMARK_FOLDER") or sys.argv[1])

client_app = ClientApp()
server_app = ServerApp()


@cache
def given() -> Given:
    """The work, read once in each process."""
    return read(FOLDER)


class Cohorts(FedAvg):
    """Flower's own strategy, with the clients of the work instead of the nodes' own partitions."""

    def configure_train(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
        """As Flower's, and every message says whom its node plays."""
        number = args[0] if args else kwargs["server_round"]
        messages = list(super().configure_train(*args, **kwargs))
        for message, client in zip(messages, given().cohorts[number - 1], strict=True):
            records = {**message.content, "played": ConfigRecord({"client": client})}
            message.content = RecordDict(records)
        return messages


@client_app.train()
def local(message: Message, context: Context) -> Message:
    """One client's round."""
    del context
    work = given()
    net = network(work.facts["model"])
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    shard = work.shards[int(message.content["played"]["client"])]
    train(net, work.x[shard], work.y[shard], work.facts)
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord({"num-examples": len(shard)}),
    }
    return Message(content=RecordDict(content), reply_to=message)


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """All rounds, the whole test set on the server after each of them."""
    del context
    work, report = given(), Report()
    net, cohorts = work.first_network(), work.cohorts
    times: list[float] = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        net.load_state_dict(arrays.to_torch_state_dict())
        found = hits(net, work.test_x, work.test_y) / len(work.test_y)
        times.append(time.perf_counter())
        if number:
            report.accuracy.append(found)
        return MetricRecord({"accuracy": found})

    def count(records: list[RecordDict], weighting: str) -> MetricRecord:
        total = sum(int(record["metrics"][weighting]) for record in records)
        report.samples.append(total)
        return MetricRecord({"samples": total})

    clients = len(work.shards)
    strategy = Cohorts(
        fraction_train=len(cohorts[0]) / clients,
        fraction_evaluate=0.0,
        min_available_nodes=clients,
        train_metrics_aggr_fn=count,
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(net.state_dict()),
        num_rounds=len(cohorts),
        evaluate_fn=evaluate,
    )
    if len(report.samples) < len(cohorts):
        raise RuntimeError("clients failed: Flower goes on without them, a measurement does not")
    report.seconds = [after - before for before, after in pairwise(times)]
    report.end(work, nn.utils.parameters_to_vector(net.parameters())).print()


def main() -> None:
    """Start the simulation: as many nodes as clients, one core for each client actor."""
    os.environ["BENCHMARK_FOLDER"] = str(FOLDER)  # client actors inherit it
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=len(given().shards),
        backend_config=resources,
    )


if __name__ == "__main__":
    import flower_app  # under its own name: what belongs to __main__ is not found in client actors

    flower_app.main()
