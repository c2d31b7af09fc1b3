"""Federated averaging as a competent user of PyTorch writes it by hand: staged tensors, one loop,
nothing else.

``python benchmarks/handwritten.py FOLDER [--threads N]`` does the federation that work.py wrote
into FOLDER and prints one JSON object: seconds, trained samples and test accuracy of each round. It
does not use Backstop.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    """The network of PyTorch's tutorial "Training a Classifier"."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images (b, 3, 32, 32) → logits (b, 10)."""
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


def network(name: str) -> nn.Module:
    """The model of the work."""
    if name == "image":
        return Net()
    return nn.Sequential(
        nn.Linear(30, 128), nn.ReLU(), nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 2)
    )


def staged(folder: Path, part: str, index: Any, facts: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Some samples of the training set (part "") or the test set ("test_") as normalized float
    tensors.
    """
    x = torch.tensor(np.load(folder / f"{part}x.npy", mmap_mode="r")[index])
    y = torch.tensor(np.load(folder / f"{part}y.npy", mmap_mode="r")[index])
    shape = (-1, 1, 1) if x.dim() == 4 else (-1,)
    mean, std = (torch.tensor(facts[key]).view(shape) for key in ("mean", "std"))
    scale = 255.0 if x.dtype == torch.uint8 else 1.0
    return (x.float().div_(scale) - mean) / std, y


def train(net: nn.Module, x: Tensor, y: Tensor, facts: dict[str, Any]) -> None:
    """One local epoch, in place."""
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=facts["lr"], momentum=facts["momentum"])
    for batch in torch.randperm(len(y)).split(facts["batch"]):
        optimizer.zero_grad()
        F.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()


@torch.inference_mode()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of samples with the true label."""
    net.eval()
    hits = sum(
        int((net(images).argmax(1) == labels).sum())
        for images, labels in zip(x.split(500), y.split(500), strict=True)
    )
    return hits / len(y)


def federate(folder: Path) -> dict[str, list[float]]:
    """All rounds of the work in this process."""
    facts = json.loads((folder / "facts.json").read_text())
    owner, cohorts = np.load(folder / "owner.npy"), np.load(folder / "cohorts.npy")
    x, y = staged(folder, "", slice(None), facts)
    test_x, test_y = staged(folder, "test_", slice(None), facts)
    shards = [
        torch.from_numpy(np.flatnonzero(owner == client)) for client in range(owner.max() + 1)
    ]
    net = network(facts["model"])
    nn.utils.vector_to_parameters(torch.from_numpy(np.load(folder / "start.npy")), net.parameters())
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report: dict[str, list[float]] = {"seconds": [], "samples": [], "accuracy": []}
    for cohort in cohorts:
        started = time.perf_counter()
        total = sum(len(shards[client]) for client in cohort)
        mean = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        for client in cohort:
            net.load_state_dict(state)
            shard = shards[client]
            train(net, x[shard], y[shard], facts)
            for name, tensor in net.state_dict().items():
                mean[name] += tensor * (len(shard) / total)
        state = mean
        net.load_state_dict(state)
        report["accuracy"].append(accuracy(net, test_x, test_y))
        report["samples"].append(total)
        report["seconds"].append(time.perf_counter() - started)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Federated averaging by hand.")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--threads", type=int, default=0, help="threads of PyTorch (default: PyTorch's own choice)"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(json.dumps(federate(options.folder)))
