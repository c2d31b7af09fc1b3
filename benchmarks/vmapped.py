"""Federated averaging by hand with all clients of a cohort at once: torch.func's vmap over stacked
models.

``python benchmarks/vmapped.py FOLDER [--threads N]`` does the federation that work.py wrote into
FOLDER and prints one JSON object, as handwritten.py does. Clients are sorted by their steps:
whoever has finished is no longer computed. The last batch of a client is filled up with samples of
weight 0.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from given import Given, Report, hits, read
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F


def batches(work: Given, clients: list[int]) -> tuple[Tensor, Tensor]:
    """The rows that each client trains on in each step (clients, steps, batch), shuffled, and their
    weights within their batch: 0 for what fills it up.
    """
    size = work.facts["batch"]
    steps = -(-len(work.shards[clients[0]]) // size)  # the first client is the largest
    rows = torch.zeros(len(clients), steps * size, dtype=torch.long)
    real = torch.zeros(len(clients), steps * size)
    for row, mark, client in zip(rows, real, clients, strict=True):
        shard = work.shards[client]
        row[: len(shard)] = shard[torch.randperm(len(shard))]
        mark[: len(shard)] = 1.0
    real = real.view(len(clients), steps, size)
    weights = real / real.sum(2, keepdim=True).clamp(min=1.0)
    return rows.view(len(clients), steps, size), weights


def federate(work: Given) -> Report:
    """All rounds of the work."""
    report, net = Report(), work.first_network()
    model = {name: value.detach().clone() for name, value in net.named_parameters()}
    lr, momentum, size = (work.facts[key] for key in ("lr", "momentum", "batch"))

    def loss(params: dict[str, Tensor], x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        logits = functional_call(net, params, (x,))
        return (F.cross_entropy(logits, y, reduction="none") * weight).sum()

    gradients = vmap(grad(loss))
    for cohort in work.cohorts:
        started = time.perf_counter()
        clients = sorted(cohort, key=lambda client: -len(work.shards[client]))
        steps = [-(-len(work.shards[client]) // size) for client in clients]
        rows, weights = batches(work, clients)
        stacked = {
            name: value.expand(len(clients), *value.shape).clone() for name, value in model.items()
        }
        moving = {name: torch.zeros_like(value) for name, value in stacked.items()}
        for step in range(steps[0]):
            live = sum(count > step for count in steps)
            now = {name: value[:live] for name, value in stacked.items()}
            chosen = rows[:live, step]
            found = gradients(now, work.x[chosen], work.y[chosen], weights[:live, step])
            for name, gradient in found.items():
                moved = moving[name][:live].mul_(momentum).add_(gradient)
                now[name].sub_(moved, alpha=lr)
        total = work.samples(clients)
        shares = torch.tensor([len(work.shards[client]) / total for client in clients])
        model = {name: torch.tensordot(shares, value, 1) for name, value in stacked.items()}
        net.load_state_dict(model)
        accuracy = hits(net, work.test_x, work.test_y) / len(work.test_y)
        report.add(time.perf_counter() - started, total, accuracy)
    return report.end(work, torch.cat([value.flatten() for value in model.values()]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Federated averaging with vmap.")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--threads", type=int, default=0, help="threads of PyTorch (default: PyTorch's own choice)"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    federate(read(options.folder)).print()
