"""What a round's training costs by each engine: ``python benchmarks/engines.py [--turns N]``.

Prints a table of milliseconds of the process's own time on one thread of a CPU, median (least to
most): the loop, the block under vmap, the block with gradients by hand, in turns. A dash stands
where an engine cannot train the model. No data is needed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch
from work import TABLE

from backstop.platform.contract import Part, Spec
from backstop.platform.specs.spec import validate
from backstop.platform.training import federation, loading
from backstop.platform.training.federation import Federation
from backstop.platform.workers.clients import InProcess, one_thread

DIGITS = Spec(malicious=0.0)
MODELS = {
    "digits, `mlp`, batches of 64": DIGITS,
    "digits, `mlp`, 2 epochs in batches of 16": DIGITS.replace(
        clients=40, alpha=10.0, local_epochs=2, batch=16
    ),
    "digits, `mlp`, 1,000 clients a round": DIGITS.replace(
        clients=1000, per_round=1000, alpha=None, root_size=0
    ),
    "a table, `logistic`": TABLE.replace(model=Part("logistic")),
    "a table, `mlp(hidden=128-256)`": TABLE,
    "a table, `mlp(hidden=512-512)`": TABLE.replace(model=Part("mlp", {"hidden": "512-512"})),
    "topics, `bag_of_words`": DIGITS.replace(
        dataset=Part("topics"), model=Part("bag_of_words"), alpha=10.0, batch=16
    ),
}
NAMES = ("loop", "vmap", "by hand")


class Timed(NamedTuple):
    """A federation under one engine, and what its rounds took, in ms."""

    built: Federation
    clients: InProcess
    milliseconds: list[float]


def engines(spec: Spec) -> dict[str, Timed]:
    """The engines that can train a spec's model."""
    spec = validate(spec)
    data = loading.load_dataset(spec.dataset, Path("unused"))
    built = federation.build_federation(spec, data, torch.device("cpu"))
    by_autograd = built.net._replace(dense=None)
    networks = {
        "loop": by_autograd._replace(vectorized=False),
        "vmap": by_autograd._replace(vectorized=True),
    }
    if built.net.dense:
        networks["by hand"] = built.net
    timed = {}
    for name, net in networks.items():
        clients = InProcess()
        federated = built._replace(net=net)
        clients.open(federated, Path("unused"))
        timed[name] = Timed(federated, clients, [])
    return timed


def train(timed: Timed) -> None:
    """Train a cohort once."""
    built = timed.built
    cohort = range(built.spec.per_round)
    started = time.process_time()
    timed.clients.train(1, cohort, built.net.params, built.net.buffers, None)
    timed.milliseconds.append(1000 * (time.process_time() - started))


def spread(milliseconds: list[float]) -> str:
    """Median, least and most."""
    least, most = min(milliseconds), max(milliseconds)
    return f"{statistics.median(milliseconds):.1f} ({least:.1f} to {most:.1f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--turns", type=int, default=12, help="rounds of each engine")
    turns = parser.parse_args().turns
    print(f"| clients and model | {' | '.join(NAMES)} |")
    print("| --- | ---: | ---: | ---: |")
    for title, spec in MODELS.items():
        timed = engines(spec)
        with one_thread():
            for _ in range(turns):
                for one in timed.values():
                    train(one)
        figures = [spread(timed[name].milliseconds) if name in timed else "–" for name in NAMES]
        print(f"| {title} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
