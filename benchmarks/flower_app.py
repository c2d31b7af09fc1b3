"""The same federation with Flower's simulation engine, as its users write it; the model and the
local training are those of handwritten.py.

``python benchmarks/flower_app.py FOLDER`` runs in an environment of its own (run.py makes it) and
prints one JSON object: seconds, trained samples and test accuracy of each round. Cohorts are drawn
by Flower's own strategy, so the number of trained samples differs a little from the other
contenders'. Every client actor keeps the samples of the clients it has met, staged, which spares
Flower the usual data loading.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from handwritten import accuracy, network, staged, train
from torch import Tensor, nn

FOLDER = Path(os.environ.get("BENCHMARK_FOLDER") or sys.argv[1])

client_app = ClientApp()
server_app = ServerApp()


@lru_cache
def facts() -> dict[str, Any]:
    """What work.py wrote about the federation."""
    found: dict[str, Any] = json.loads((FOLDER / "facts.json").read_text())
    return found


@lru_cache
def owner() -> Any:
    """The client of each training sample."""
    return np.load(FOLDER / "owner.npy")


@cache
def shard(client: int) -> tuple[Tensor, Tensor]:
    """The samples of a client."""
    return staged(FOLDER, "", np.flatnonzero(owner() == client), facts())


@client_app.train()
def local(message: Message, context: Context) -> Message:
    """One client's round."""
    net = network(facts()["model"])
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = shard(int(context.node_config["partition-id"]))
    train(net, x, y, facts())
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord({"num-examples": len(y)}),
    }
    return Message(content=RecordDict(content), reply_to=message)


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """All rounds, the whole test set on the server after each of them."""
    del context
    net, cohorts = network(facts()["model"]), np.load(FOLDER / "cohorts.npy")
    nn.utils.vector_to_parameters(torch.from_numpy(np.load(FOLDER / "start.npy")), net.parameters())
    test = staged(FOLDER, "test_", slice(None), facts())
    times: list[float] = []
    report: dict[str, list[float]] = {"seconds": [], "samples": [], "accuracy": []}

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        net.load_state_dict(arrays.to_torch_state_dict())
        found = accuracy(net, *test)
        times.append(time.perf_counter())
        if number:
            report["accuracy"].append(found)
        return MetricRecord({"accuracy": found})

    def count(records: list[RecordDict], weighting: str) -> MetricRecord:
        total = sum(int(record["metrics"][weighting]) for record in records)
        report["samples"].append(total)
        return MetricRecord({"samples": total})

    clients = int(owner().max()) + 1
    strategy = FedAvg(
        fraction_train=cohorts.shape[1] / clients,
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
    if len(report["samples"]) < len(cohorts):
        raise RuntimeError("clients failed: Flower goes on without them, a measurement does not")
    report["seconds"] = np.diff(times).tolist()
    print(json.dumps(report), flush=True)


def main() -> None:
    """Start the simulation: 100 virtual clients, one core for each client actor."""
    os.environ["BENCHMARK_FOLDER"] = str(FOLDER)  # client actors inherit it
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=int(owner().max()) + 1,
        backend_config=resources,
    )


if __name__ == "__main__":
    import flower_app  # under its own name: what belongs to __main__ is not found in client actors

    flower_app.main()
