"""The same federation with pfl-research, as its users write it; the model is given.py's.

``python benchmarks/pfl_app.py FOLDER`` runs in an environment of its own (peers.py makes it) and
prints one JSON object: seconds, trained samples and test accuracy of each round. Under torchrun
each process trains its share of the cohort. All samples are staged tensors, and every user's are
shuffled before a round, which pfl-research leaves to its users.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ["PFL_PYTORCH_DEVICE"] = "cpu"

import torch
from given import EVALUATED, Given, Report, read
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted, get_overall_value
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn
from torch.nn import functional as F


class Learner(nn.Module):
    """The given network with the two functions that pfl-research asks for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """What a local step minimizes."""
        self.train()
        return F.cross_entropy(self.net(x), y)

    @torch.inference_mode()
    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Weighted]:
        """What an evaluation counts."""
        self.eval()
        return {"accuracy": Weighted(int((self.net(x).argmax(1) == y).sum()), len(y))}


def in_turn(work: Given) -> Iterator[int]:
    """The clients of all rounds. Those of like size stand together, so that several processes, who
    take turns, have equally much to do.
    """
    for cohort in work.cohorts:
        yield from sorted(cohort, key=lambda client: len(work.shards[client]))


class Watch(TrainingProcessCallback[PyTorchModel]):
    """Evaluates on the whole test set after every round, and takes the time."""

    def __init__(self, work: Given) -> None:
        self.work, self.report = work, Report()
        test = PyTorchTensorDataset((work.test_x, work.test_y))
        self.test = test.get_worker_partition()
        self.started = 0.0

    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
        """The first round starts."""
        del model
        self.started = time.perf_counter()
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """A round's end."""
        del aggregate_metrics
        from pfl.internal import ops

        own = model.evaluate(self.test, eval_params=NNEvalHyperParams(local_batch_size=EVALUATED))
        values: Any = dict(ops.all_reduce_metrics(own))
        (found,) = values.values()
        clients = self.work.cohorts[central_iteration]
        now = time.perf_counter()
        total = self.work.samples(clients)
        self.report.add(now - self.started, total, get_overall_value(found))
        self.started = now
        return False, Metrics()


def main(folder: Path) -> None:
    """All rounds of the work."""
    work = read(folder)
    facts = work.facts
    net = Learner(work.first_network())
    model = PyTorchModel(
        net,
        partial(torch.optim.SGD, momentum=facts["momentum"]),
        torch.optim.SGD(net.parameters(), lr=1.0),
    )
    clients = in_turn(work)

    def samples(client: int) -> PyTorchTensorDataset:
        shard = work.shards[client]
        rows = shard[torch.randperm(len(shard))]
        return PyTorchTensorDataset((work.x[rows], work.y[rows]), user_id=str(client))

    users = FederatedDataset(samples, lambda: next(clients))
    watch = Watch(work)
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=len(work.cohorts),
            evaluation_frequency=len(work.cohorts) + 1,
            train_cohort_size=len(work.cohorts[0]),
            val_cohort_size=None,
        ),
        SimulatedBackend(users, users, postprocessors=[WeightByDatapoints()]),
        model,
        NNTrainHyperParams(
            local_batch_size=facts["batch"], local_num_epochs=1, local_learning_rate=facts["lr"]
        ),
        callbacks=[watch],
        send_metrics_to_platform=False,
    )
    if os.environ.get("RANK", "0") == "0":
        watch.report.end(work, nn.utils.parameters_to_vector(net.parameters())).print()


if __name__ == "__main__":
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.set_num_threads(1)
    main(Path(sys.argv[1]))
