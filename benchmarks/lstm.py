"""What a training step of the LSTM costs on one thread: ``python benchmarks/lstm.py [--repeats
N]``.

Batches of 64 made-up documents with the lengths of tweets: 3 to 35 words, about 14 on average.
Prints tables of milliseconds, median (least, most) over the repeats, all rows taking turns: forward
and backward by several ways of computing the same network, forward alone, and the parts of a local
step.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence

from backstop.platform.contract import Data, Samples
from backstop.platform.models.lstm import lstm
from backstop.platform.seeds import generator, seeded
from backstop.platform.training import network

SIZES = {
    "300-dimensional words, 2 layers of 200": (300, 200, 2),
    "32-dimensional words, 1 layer of 32": (32, 32, 1),
}
WORDS, BATCH, BATCHES, LONGEST = 10000, 64, 6, 35


def tweets() -> list[tuple[Tensor, Tensor]]:
    """Batches of token ids (64, 35) with labels."""
    draws = generator(0, "tweets")
    size = (BATCHES, BATCH, 1)
    # 3 plus a gamma variable of shape 2
    length = (3 - 5.5 * torch.rand(2, *size, generator=draws).log().sum(0)).long().clamp(3, LONGEST)
    x = torch.randint(1, WORDS + 1, (BATCHES, BATCH, LONGEST), generator=draws)
    y = torch.randint(0, 2, (BATCHES, BATCH), generator=draws)
    return list(zip(torch.where(torch.arange(LONGEST) < length, x, 0), y, strict=True))


def library(net: nn.Module, x: Tensor, *, how: str) -> Tensor:
    """The same logits by ``torch.nn.LSTM``: packed, sorted here and packed, or cut to the longest
    document.
    """
    length, layer = (x != 0).sum(1), net.get_submodule("lstm")
    words = net.get_submodule("embedding")(x.t())
    if how == "cut":
        states = layer(words[: int(length.max())])[0]
        last = states[length - 1, torch.arange(len(x))]
    elif how == "sorted":
        length, order = length.sort(descending=True)
        last = layer(pack_padded_sequence(words[:, order], length))[1][0][-1][order.argsort()]
    else:
        last = layer(pack_padded_sequence(words, length, enforce_sorted=False))[1][0][-1]
    logits: Tensor = net.get_submodule("output")(last)
    return logits


def compare(rows: Mapping[str, Callable[[], None]], repeats: int) -> None:
    """Print a row of milliseconds for each, after one call to warm up."""
    took: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(repeats + 1):
        for name, call in rows.items():
            started = time.perf_counter()
            call()
            if turn:
                took[name].append((time.perf_counter() - started) * 1e3 / BATCHES)
    for name, times in took.items():
        print(f"  {name:48} {statistics.median(times):7.2f} ({min(times):.2f}, {max(times):.2f})")


def measure(dim: int, hidden: int, layers: int, repeats: int) -> None:
    """The tables for one size."""
    data = tweets()
    with seeded(0, "model"):
        nets = {
            kind: lstm(words=WORDS, dim=dim, hidden=hidden, layers=layers, embedding=kind)(
                (LONGEST,), 2
            )
            for kind in ("frozen", "learned")
        }
    frozen = nets["frozen"]
    fixed = nn.Embedding.from_pretrained(frozen.get_submodule("embedding").weight)
    plain = lstm(words=WORDS, dim=dim, hidden=hidden, layers=layers, embedding="frozen")(
        (LONGEST,), 2
    )
    plain.load_state_dict(frozen.state_dict())
    plain.embedding = fixed

    def step(call: Callable[[Tensor], Tensor], *, mkldnn: bool = True, learn: bool = True) -> None:
        with torch.backends.mkldnn.flags(enabled=mkldnn), torch.inference_mode(not learn):
            for x, y in data:
                loss = cross_entropy(call(x), y)
                if learn:
                    loss.backward()

    ways: dict[str, Callable[[Tensor], Tensor]] = {"this model": frozen}
    ways |= {
        f"torch.nn.LSTM, {how}": partial(library, plain, how=how)
        for how in ("packed", "sorted", "cut")
    }
    for name, call in ways.items():
        torch.testing.assert_close(call(data[0][0]), frozen(data[0][0]), msg=name)
    rows = {
        f"{name}{off}": partial(step, call, mkldnn=not off)
        for name, call in ways.items()
        for off in ("", ", without oneDNN")
    }
    print(" forward and backward, frozen embedding")
    compare(rows, repeats)
    print(" forward only, inference mode")
    compare({name: partial(step, call, learn=False) for name, call in ways.items()}, repeats)

    samples = Samples(*data[0])
    for kind, net in nets.items():
        replica = network.Replica(
            network.network(net, Data(samples, samples, 2, "text"), torch.device("cpu"), BATCH)
        )
        velocity = torch.zeros_like(replica.grad)

        def zero(replica: network.Replica = replica) -> None:
            for _ in data:
                replica.grad.zero_()

        def descend(replica: network.Replica = replica, velocity: Tensor = velocity) -> None:
            for _ in data:
                replica.params.sub_(velocity.mul_(0.9).add_(replica.grad), alpha=1e-6)

        print(f" parts of a local step, {kind} embedding, {len(replica.params):,} parameters sent")
        compare(
            {
                "forward and backward": partial(step, replica),
                "gradient to zero": zero,
                "SGD with momentum": descend,
            },
            repeats,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A training step of the LSTM.")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="TF32")
    for title, numbers in SIZES.items():
        print(title)
        measure(*numbers, options.repeats)
