"""What the parts of a local step cost: ``python benchmarks/step.py [--turns N] [--noise]``.

The CNN of PyTorch's CIFAR-10 tutorial, batches of 64 images at random, one thread. Prints a table
of milliseconds of the process's own time, median (least to most) over the turns: by PyTorch's
layers alone, as without numba, and as Backstop computes them. All parts take turns, both ways.
``--noise`` takes made-up images and needs no data.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu
from work import IMAGE

from backstop.platform.contract import Data, Samples
from backstop.platform.seeds import generator
from backstop.platform.specs.spec import validate
from backstop.platform.training import federation, loading, pooling
from backstop.platform.training.client_rules import plain_steps
from backstop.platform.training.device import choose_device
from backstop.platform.training.federation import Federation
from backstop.platform.training.loop_engine import descend
from backstop.platform.training.network import Replica

EVALUATED = 500  # images at once
STEP, REST, EVALUATION = "a step", "everything else", f"evaluation of {EVALUATED} images"

Work = Callable[[], object]
Batch = tuple[Tensor, Tensor]


class Way(NamedTuple):
    """One way to compute the same."""

    compiled: bool  # whether the compiled loops may be used
    parts: Mapping[str, Work]


def noise() -> Data:
    """Made-up images in the shape of CIFAR-10."""
    draws = generator(0, "step")
    x = torch.randint(0, 256, (50_000, 3, 32, 32), generator=draws, dtype=torch.uint8)
    y = torch.randint(0, 10, (50_000,), generator=draws)
    return Data(
        train=Samples(x, y),
        test=Samples(x[:EVALUATED], y[:EVALUATED]),
        classes=10,
        kind="image",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def batches(data: Data, size: int) -> Iterator[Batch]:
    """Batches at random without end, as stored."""
    draws = generator(0, "step", "batches")
    while True:
        index = torch.randint(0, len(data.train.y), (size,), generator=draws)
        yield data.train.x[index], data.train.y[index]


def parts(built: Federation) -> dict[str, Work]:
    """The parts of a step, by name; each call is one step's."""
    net, module = built.net, built.replica.module
    drawn = batches(built.data, built.spec.batch)
    first, second = module.get_submodule("conv1"), module.get_submodule("conv2")
    x = net.normalize(next(drawn)[0])
    once = first(x)
    hidden = relu(once).detach().requires_grad_()
    twice = second(hidden)
    tested = built.data.test.x[:EVALUATED]

    def gradients(pooled: Tensor, *inputs: Tensor) -> Work:
        grad = torch.randn(pooled.shape, generator=generator(0, "step", "gradient"))
        grad *= pooled > 0  # a rectifier follows
        return lambda: torch.autograd.grad(pooled, inputs, grad, retain_graph=True)

    def step() -> Tensor:
        kind, name = plain_steps(built), ("step", 0)
        return descend(built, [next(drawn)], net.params, kind, name)

    def evaluate() -> Tensor:
        with torch.no_grad():
            return net.logits(net.params, tested)

    return {
        "images looked up, scaled, laid out channels last": lambda: net.normalize(next(drawn)[0]),
        "first convolution and pooling, forward": lambda: first(x),
        "first convolution and pooling, backward": gradients(once, *first.parameters()),
        "second convolution and pooling, forward": lambda: second(hidden),
        "second convolution and pooling, backward": gradients(twice, hidden, *second.parameters()),
        STEP: step,
        EVALUATION: evaluate,
    }


def both_ways(data: Data) -> dict[str, Way]:
    """PyTorch's layers and Backstop's."""
    built = federation.build_federation(validate(IMAGE), data, choose_device("cpu"))
    plain = built.net._replace(pixels=None)
    other = built._replace(net=plain, replica=Replica(plain))
    ways = {}
    for name, compiled, work in (("PyTorch's layers", False, other), ("Backstop", True, built)):
        pooling.COMPILED = compiled
        ways[name] = Way(compiled, parts(work))
    return ways


def measure(ways: Mapping[str, Way], turns: int) -> dict[str, dict[str, list[float]]]:
    """Part → way → milliseconds, one value a turn; the first turn, which compiles, is left out."""
    names = list(next(iter(ways.values())).parts)
    spent: dict[str, dict[str, list[float]]] = {part: {way: [] for way in ways} for part in names}
    for turn in range(turns + 1):
        for part in names:
            for name, way in ways.items():
                pooling.COMPILED = way.compiled
                started = time.process_time()
                way.parts[part]()
                if turn:
                    spent[part][name].append(1e3 * (time.process_time() - started))
    return spent


def rest(spent: Mapping[str, Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """What a step costs beside its parts, from the medians."""
    listed = [part for part in spent if part not in (STEP, EVALUATION)]
    return {
        way: [statistics.median(step) - sum(statistics.median(spent[part][way]) for part in listed)]
        for way, step in spent[STEP].items()
    }


def cell(values: list[float]) -> str:
    """The median, with the extremes where there are several."""
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"


def table(spent: Mapping[str, Mapping[str, list[float]]]) -> str:
    """The measurements as Markdown."""
    ways = list(spent[STEP])
    lines = [["part of a step, ms", *ways], ["---", *("---:" for _ in ways)]]
    for part, values in spent.items():
        if part == STEP:
            lines.append([REST, *(cell(value) for value in rest(spent).values())])
        lines.append([part, *(cell(values[way]) for way in ways)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the parts of a local step cost.")
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--noise", action="store_true", help="made-up images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stored = None if options.noise else loading.load_dataset(IMAGE.dataset, loading.data_folder())
    print(table(measure(both_ways(stored or noise()), options.turns)))
