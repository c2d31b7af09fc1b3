"""The floor: a round's arithmetic in PyTorch's own kernels and nothing else.

``python benchmarks/stock.py FOLDER [--processes N]`` does the federation that work.py wrote into
FOLDER and prints one JSON object: seconds, trained samples and test accuracy of each round. The
derivatives are written by hand, batches lie ready before the clock starts, and neither autograd nor
a module nor an optimizer stands between the kernels. ``image``: client by client, each process with
one thread and its share of the cohort. ``table``: all clients that are not done yet in one batched
product, in one process.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from given import EVALUATED, Given, Report, read
from handwritten import shares
from torch import Tensor
from torch.nn import functional as F
from vmapped import batches

aten = torch.ops.aten
PATIENCE = 300.0  # seconds that processes wait for each other


def split(flat: Tensor, work: Given) -> list[Tensor]:
    """Flat parameters (…, d) → one contiguous tensor a layer."""
    shapes = [value.shape for value in work.first_network().parameters()]
    parts = flat.split([math.prod(shape) for shape in shapes], -1)
    return [
        part.reshape(*flat.shape[:-1], *shape).clone()
        for part, shape in zip(parts, shapes, strict=True)
    ]


def joined(params: list[Tensor]) -> Tensor:
    """The inverse of split for one model."""
    return torch.cat([value.flatten() for value in params])


def image_forward(params: list[Tensor], x: Tensor) -> list[Tensor]:
    """All that the derivatives of the CNN need; the logits stand last."""
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = params
    a1 = F.conv2d(x, w1, b1).relu_()
    p1, i1 = aten.max_pool2d_with_indices(a1, [2, 2], [2, 2])
    a2 = F.conv2d(p1, w2, b2).relu_()
    p2, i2 = aten.max_pool2d_with_indices(a2, [2, 2], [2, 2])
    flat = p2.flatten(1)
    h1 = torch.addmm(b3, flat, w3.t()).relu_()
    h2 = torch.addmm(b4, h1, w4.t()).relu_()
    return [a1, p1, i1, a2, p2, i2, flat, h1, h2, torch.addmm(b5, h2, w5.t())]


def unpooled(gradient: Tensor, active: Tensor, index: Tensor) -> Tensor:
    """Back through a pool and the rectifier before it."""
    wide = aten.max_pool2d_with_indices_backward(
        gradient, active, [2, 2], [2, 2], [0, 0], [1, 1], False, index
    )
    return aten.threshold_backward(wide, active, 0)


def convolved(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    *,
    first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Back through a convolution: to its input (but for the first one), weight and bias."""
    found: tuple[Tensor, Tensor, Tensor] = aten.convolution_backward(
        gradient,
        x,
        weight,
        [len(weight)],
        [1, 1],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        1,
        [not first, True, True],
    )
    return found


def image_gradients(params: list[Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
    """The gradient of the mean cross-entropy, layer by layer."""
    w1, _, w2, _, w3, _, w4, _, w5, _ = params
    a1, p1, i1, a2, p2, i2, flat, h1, h2, logits = image_forward(params, x)
    g5 = logits.softmax(1)
    g5[torch.arange(len(y)), y] -= 1.0
    g5 /= len(y)
    g4 = aten.threshold_backward(g5 @ w5, h2, 0)
    g3 = aten.threshold_backward(g4 @ w4, h1, 0)
    g2 = unpooled((g3 @ w3).view_as(p2), a2, i2)
    down, d2, e2 = convolved(g2, p1, w2, first=False)
    _, d1, e1 = convolved(unpooled(down, a1, i1), x, w1, first=True)
    return [
        *(d1, e1, d2, e2),
        *(g3.t() @ flat, g3.sum(0), g4.t() @ h1, g4.sum(0), g5.t() @ h2, g5.sum(0)),
    ]


def train_images(work: Given, start: Tensor, ready: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """One client's local epoch over batches that lie ready."""
    params = split(start, work)
    moving = [torch.zeros_like(value) for value in params]
    for x, y in ready:
        torch._foreach_mul_(moving, work.facts["momentum"])
        torch._foreach_add_(moving, image_gradients(params, x, y))
        torch._foreach_add_(params, moving, alpha=-work.facts["lr"])
    return params


def image_hits(params: list[Tensor], x: Tensor, y: Tensor) -> int:
    """How many samples get the true label."""
    return sum(
        int((image_forward(params, images)[-1].argmax(1) == labels).sum())
        for images, labels in zip(x.split(EVALUATED), y.split(EVALUATED), strict=True)
    )


def laid_out(work: Given, client: int) -> list[tuple[Tensor, Tensor]]:
    """A client's shuffled batches."""
    shard = work.shards[client]
    rows = shard[torch.randperm(len(shard))].split(work.facts["batch"])
    return [(work.x[batch], work.y[batch]) for batch in rows]


def image_rounds(
    work: Given,
    rank: int,
    processes: int,
    together: Barrier,
    parts: Tensor,
    counts: Tensor,
) -> Report:
    """One process's share of all rounds; processes meet after training and after evaluation."""
    torch.set_num_threads(1)
    report, model = Report(), work.start
    step = -(-len(work.test_y) // (processes * EVALUATED)) * EVALUATED
    mine = slice(rank * step, (rank + 1) * step)
    for cohort in work.cohorts:
        total = work.samples(cohort)
        own = shares(work, cohort, processes)[rank]
        ready = [(len(work.shards[client]) / total, laid_out(work, client)) for client in own]
        parts[rank].zero_()
        together.wait(PATIENCE)
        started = time.perf_counter()
        for weight, prepared in ready:
            parts[rank].add_(joined(train_images(work, model, prepared)), alpha=weight)
        together.wait(PATIENCE)
        model = parts.sum(0)
        counts[rank] = image_hits(split(model, work), work.test_x[mine], work.test_y[mine])
        together.wait(PATIENCE)
        seconds = time.perf_counter() - started
        report.add(seconds, total, int(counts.sum()) / len(work.test_y))
    return report.end(work, model)


@torch.inference_mode()
def federate_images(work: Given, processes: int) -> Report:
    """All rounds of the image work; this process does its share."""
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(processes)
    parts = torch.zeros(processes, len(work.start)).share_memory_()
    counts = torch.zeros(processes, dtype=torch.long).share_memory_()
    others = [
        fork.Process(target=image_rounds, args=(work, rank, processes, together, parts, counts))
        for rank in range(1, processes)
    ]
    for other in others:
        other.start()
    report = image_rounds(work, 0, processes, together, parts, counts)
    for other in others:
        other.join()
    return report


def table_step(
    params: list[Tensor],
    moving: list[Tensor],
    x: Tensor,
    target: Tensor,
    weight: Tensor,
    facts: dict[str, float],
) -> None:
    """A step of all live clients at once, in place: x (live, batch, features), target one-hot."""
    inputs, rectified = [x], x
    for w, b in zip(params[:-2:2], params[1:-2:2], strict=True):
        rectified = torch.baddbmm(b.unsqueeze(1), rectified, w.transpose(1, 2)).relu_()
        inputs.append(rectified)
    logits = torch.baddbmm(params[-1].unsqueeze(1), rectified, params[-2].transpose(1, 2))
    gradient = logits.softmax(2).sub_(target).mul_(weight.unsqueeze(2))
    for layer in range(len(inputs) - 1, -1, -1):
        below = gradient
        if layer:
            below = torch.bmm(gradient, params[2 * layer])
            below = aten.threshold_backward(below, inputs[layer], 0)
        moving[2 * layer].baddbmm_(gradient.transpose(1, 2), inputs[layer], beta=facts["momentum"])
        moving[2 * layer + 1].mul_(facts["momentum"]).add_(gradient.sum(1))
        gradient = below
    torch._foreach_add_(params, moving, alpha=-facts["lr"])


@torch.inference_mode()
def federate_table(work: Given) -> Report:
    """All rounds of the table work."""
    report, model = Report(), work.start
    size, classes = work.facts["batch"], int(work.y.max()) + 1
    for cohort in work.cohorts:
        total = work.samples(cohort)
        clients = sorted(cohort, key=lambda client: -len(work.shards[client]))
        steps = [-(-len(work.shards[client]) // size) for client in clients]
        rows, weights = batches(work, clients)
        live = [sum(count > step for count in steps) for step in range(steps[0])]
        x = [work.x[rows[:n, step]] for step, n in enumerate(live)]
        target = [F.one_hot(work.y[rows[:n, step]], classes) for step, n in enumerate(live)]
        started = time.perf_counter()
        params = split(model.repeat(len(clients), 1), work)
        moving = [torch.zeros_like(value) for value in params]
        for step, n in enumerate(live):
            now, moved = ([value[:n] for value in values] for values in (params, moving))
            table_step(now, moved, x[step], target[step], weights[:n, step], work.facts)
        portions = torch.tensor([len(work.shards[client]) / total for client in clients])
        mean = [torch.tensordot(portions, value, 1) for value in params]
        model = joined(mean)
        hidden = work.test_x
        for w, b in zip(mean[:-2:2], mean[1:-2:2], strict=True):
            hidden = torch.addmm(b, hidden, w.t()).relu_()
        logits = torch.addmm(mean[-1], hidden, mean[-2].t())
        accuracy = int((logits.argmax(1) == work.test_y).sum()) / len(work.test_y)
        report.add(time.perf_counter() - started, total, accuracy)
    return report.end(work, model)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A round's kernels and nothing else.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=1, help="of one thread each (image only)")
    options = parser.parse_args()
    given = read(options.folder)
    if given.facts["model"] == "image":
        federate_images(given, options.processes).print()
    else:
        federate_table(given).print()
