"""Federated averaging as a competent user of PyTorch writes it by hand: staged tensors, one loop,
nothing else.

``python benchmarks/handwritten.py FOLDER [--threads N] [--processes N]`` does the federation that
work.py wrote into FOLDER and prints one JSON object: seconds, trained samples and test accuracy of
each round. It does not use Backstop. With several processes, each has one thread, trains its share
of the cohort and evaluates its share of the test set.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from given import EVALUATED, Given, Report, hits, read, train
from torch import Tensor, nn


@cache
def given(folder: Path) -> Given:
    """The work; processes that are forked find it read."""
    return read(folder)


def trained(folder: Path, start: Tensor, clients: list[int], total: int) -> Tensor:
    """The clients' share of the mean of all trained models, flat."""
    work = given(folder)
    net = work.first_network()
    share = torch.zeros_like(start)
    for client in clients:
        nn.utils.vector_to_parameters(start.clone(), net.parameters())
        shard = work.shards[client]
        train(net, work.x[shard], work.y[shard], work.facts)
        model = nn.utils.parameters_to_vector(net.parameters()).detach()
        share.add_(model, alpha=len(shard) / total)
    return share


def recognized(folder: Path, model: Tensor, first: int, last: int) -> int:
    """How many of some test samples get the true label."""
    work = given(folder)
    net = work.first_network()
    nn.utils.vector_to_parameters(model.clone(), net.parameters())
    return hits(net, work.test_x[first:last], work.test_y[first:last])


def federate(folder: Path) -> Report:
    """All rounds of the work in this process."""
    work, report = given(folder), Report()
    model = work.start
    for clients in work.cohorts:
        started = time.perf_counter()
        total = work.samples(clients)
        model = trained(folder, model, clients, total)
        found = recognized(folder, model, 0, len(work.test_y))
        report.add(time.perf_counter() - started, total, found / len(work.test_y))
    return report.end(work, model)


def shares(work: Given, clients: list[int], processes: int) -> list[list[int]]:
    """The clients of each process: the largest first, each to whom has least to do."""
    parts: list[list[int]] = [[] for _ in range(processes)]
    for client in sorted(clients, key=lambda number: -len(work.shards[number])):
        min(parts, key=work.samples).append(client)
    return parts


def round_on(
    pool: Executor,
    folder: Path,
    model: np.ndarray,
    clients: list[int],
    processes: int,
) -> tuple[np.ndarray, int]:
    """One round on several processes: the next model and how many test samples it recognizes."""
    work = given(folder)
    total, tested = work.samples(clients), len(work.test_y)
    parts = shares(work, clients, processes)
    jobs = [pool.submit(trained_array, folder, model, part, total) for part in parts]
    model = np.sum([job.result() for job in jobs], axis=0, dtype=np.float32)
    # whole batches of the evaluation for each
    step = -(-tested // (processes * EVALUATED)) * EVALUATED
    counts = [
        pool.submit(recognized_array, folder, model, first, first + step)
        for first in range(0, tested, step)
    ]
    return model, sum(count.result() for count in counts)


def trained_array(folder: Path, start: np.ndarray, clients: list[int], total: int) -> np.ndarray:
    """As trained, in what is cheap to send."""
    return trained(folder, torch.from_numpy(start), clients, total).numpy()


def recognized_array(folder: Path, model: np.ndarray, first: int, last: int) -> int:
    """As recognized, in what is cheap to send."""
    return recognized(folder, torch.from_numpy(model), first, last)


def federate_on(folder: Path, processes: int) -> Report:
    """All rounds of the work on several processes of one thread."""
    torch.set_num_threads(1)
    work, report = given(folder), Report()
    model = work.start.numpy()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
        for clients in work.cohorts:
            started = time.perf_counter()
            model, found = round_on(pool, folder, model, clients, processes)
            seconds = time.perf_counter() - started
            report.add(seconds, work.samples(clients), found / len(work.test_y))
    return report.end(work, torch.from_numpy(model))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Federated averaging by hand.")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--threads", type=int, default=0, help="threads of PyTorch (default: PyTorch's own choice)"
    )
    parser.add_argument("--processes", type=int, default=1, help="processes of one thread each")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.processes > 1:
        federate_on(options.folder, options.processes).print()
    else:
        federate(options.folder).print()
