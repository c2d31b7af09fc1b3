"""What all contenders are given, read back without Backstop: the federation that work.py wrote, its
model, one client's local epoch and the evaluation, as a competent user of PyTorch writes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

EVALUATED = 500  # samples of the test set at a time


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


@dataclass(frozen=True)
class Given:
    """A federation, staged: normalized samples, each client's rows, each round's clients."""

    facts: dict[str, Any]
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    shards: list[Tensor]  # a client's rows of x and y
    cohorts: list[list[int]]
    start: Tensor  # the first model's parameters, flat

    def samples(self, clients: list[int]) -> int:
        """What these clients train on, all together."""
        return sum(len(self.shards[client]) for client in clients)

    def first_network(self) -> nn.Module:
        """The model that everybody starts from."""
        net = network(self.facts["model"])
        # a copy: the parameters become views of it
        nn.utils.vector_to_parameters(self.start.clone(), net.parameters())
        return net


def normalized(samples: Any, facts: dict[str, Any]) -> Tensor:
    """Samples as stored → what the model sees."""
    x = torch.from_numpy(samples)
    shape = (-1, 1, 1) if x.dim() == 4 else (-1,)
    mean, std = (torch.tensor(facts[key]).view(shape) for key in ("mean", "std"))
    scale = 255.0 if x.dtype == torch.uint8 else 1.0
    return (x.float() / scale - mean) / std


def read(folder: Path) -> Given:
    """The federation that lies in a folder."""
    facts = json.loads((folder / "facts.json").read_text())
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    owner = arrays["owner"]
    return Given(
        facts=facts,
        x=normalized(arrays["x"], facts),
        y=torch.from_numpy(arrays["y"]),
        test_x=normalized(arrays["test_x"], facts),
        test_y=torch.from_numpy(arrays["test_y"]),
        shards=[torch.from_numpy(np.flatnonzero(owner == k)) for k in range(owner.max() + 1)],
        cohorts=arrays["cohorts"].tolist(),
        start=torch.from_numpy(arrays["start"]),
    )


def train(net: nn.Module, x: Tensor, y: Tensor, facts: dict[str, Any]) -> None:
    """One local epoch, in place."""
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=facts["lr"], momentum=facts["momentum"])
    for batch in torch.randperm(len(y)).split(facts["batch"]):
        optimizer.zero_grad()
        F.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()


@torch.inference_mode()
def hits(net: nn.Module, x: Tensor, y: Tensor) -> int:
    """How many samples get the true label."""
    net.eval()
    return sum(
        int((net(images).argmax(1) == labels).sum())
        for images, labels in zip(x.split(EVALUATED), y.split(EVALUATED), strict=True)
    )


class Report:
    """What a contender prints: seconds, trained samples and test accuracy of each round, and how
    far all rounds moved the model, which shows whether everybody did the same.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.samples: list[int] = []
        self.accuracy: list[float] = []
        self.moved = 0.0

    def add(self, seconds: float, samples: int, accuracy: float) -> None:
        """One round."""
        self.seconds.append(seconds)
        self.samples.append(samples)
        self.accuracy.append(accuracy)

    def end(self, work: Given, model: Tensor) -> Report:
        """All rounds are done and this is the model, flat."""
        self.moved = float((model.detach() - work.start).norm())
        return self

    def print(self) -> None:
        """The last line of a contender's output."""
        print(json.dumps(vars(self)), flush=True)
