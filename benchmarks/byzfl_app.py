"""The same federation with ByzFL's clients and server, as its users write it; the model is
given.py's.

``python benchmarks/byzfl_app.py FOLDER`` runs in an environment of its own (peers.py makes it) and
prints one JSON object: seconds, trained samples and test accuracy of each round. ByzFL's average
knows no weights, so every client's model is weighted before it is handed in, and a client's
momentum is cleared before each local epoch: both cost next to nothing and make it the same
federation.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from byzfl import Client, Server
from byzfl.fed_framework import models
from given import EVALUATED, Given, Report, network, read
from torch.utils.data import DataLoader, TensorDataset


def client(work: Given, number: int) -> Client:
    """One of the clients, with its samples staged."""
    shard = work.shards[number]
    samples = TensorDataset(work.x[shard], work.y[shard])
    return Client(
        {
            "model_name": "given",
            "device": "cpu",
            "optimizer_name": "SGD",
            "optimizer_params": {"momentum": work.facts["momentum"]},
            "learning_rate": work.facts["lr"],
            "weight_decay": 0.0,
            "milestones": [],
            "learning_rate_decay": 1.0,
            "loss_name": "CrossEntropyLoss",
            "LabelFlipping": False,
            "nb_labels": 10,
            "momentum": 0.0,
            "training_dataloader": DataLoader(samples, work.facts["batch"], shuffle=True),
            "store_per_client_metrics": False,
        }
    )


def server(work: Given) -> Server:
    """The server, with the model that everybody starts from."""
    made = Server(
        {
            "model_name": "given",
            "device": "cpu",
            "optimizer_name": "SGD",
            "learning_rate": 1.0,
            "weight_decay": 0.0,
            "milestones": [],
            "learning_rate_decay": 1.0,
            "aggregator_info": {"name": "Average", "parameters": {}},
            "pre_agg_list": [],
            "test_loader": DataLoader(TensorDataset(work.test_x, work.test_y), EVALUATED),
        }
    )
    made.set_parameters(work.start)
    return made


def federate(work: Given) -> Report:
    """All rounds of the work."""
    report = Report()
    # ByzFL looks models up by name
    models.given = lambda: network(work.facts["model"])
    host = server(work)
    everybody = {number: client(work, number) for number in range(len(work.shards))}
    for cohort in work.cohorts:
        started = time.perf_counter()
        total = work.samples(cohort)
        weights = []
        for number in cohort:
            one, size = everybody[number], len(work.shards[number])
            one.set_model_state(host.get_dict_parameters())
            one.optimizer.state.clear()
            one.compute_model_update(-(-size // work.facts["batch"]))
            weights.append(one.get_flat_parameters() * (size * len(cohort) / total))
        host.update_model_with_weights(weights)
        accuracy = host.compute_test_accuracy()
        report.add(time.perf_counter() - started, total, accuracy)
    return report.end(work, host.get_flat_parameters())


if __name__ == "__main__":
    federate(read(Path(sys.argv[1]))).print()
