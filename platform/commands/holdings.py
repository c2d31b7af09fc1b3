"""Who holds what: the clients of a split with their sizes and labels, for ``backstop data``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from backstop.platform.contract import Data
from backstop.platform.results.figures.wording import dealt
from backstop.platform.seeds import generator
from backstop.platform.training import partition, splits
from backstop.platform.training.skew import counts_of, input_distances, skew_of

SHOWN_CLIENTS, SHOWN_CLASSES = 30, 10  # that are shown with a line or a column each
INPUT_FIGURES = ("input_mean", "input_most", "input_chance")
SHOWN_LABELS = 3  # classes of a client, where there are more than have columns

Holdings = Mapping[str, Any]


def holdings(
    data: Data,
    *,
    clients: int | None,
    alpha: float | str | None,
    root_size: int,
    seed: int,
    labels_each: int,
    size_exponent: float,
    input_noise: float,
) -> Holdings:
    """The split of a dataset as one plain object. ``clients`` None: all natural ones. Raises
    BadInput where it cannot be made.
    """
    root, rest = partition.hold_out(len(data.train.y), root_size, seed)
    if clients is None:
        clients = 1 if data.client is None else len(data.client[rest].unique())
    shards = partition.deal(
        data,
        clients=clients,
        alpha=alpha,
        seed=seed,
        among=rest,
        labels_each=labels_each,
        size_exponent=size_exponent,
    )
    if input_noise:
        data = splits.noisy(data, shards, noise=input_noise, seed=seed)
    counts = counts_of(shards, data.train.y, data.classes)
    reading = data.reading
    classes = list(reading.classes) if reading else [str(index) for index in range(data.classes)]
    rows = []
    for index, shard in enumerate(shards):
        name = str(index)
        if alpha == "natural" and data.client is not None and reading and reading.clients:
            name = reading.clients[int(data.client[shard[0]])]
        labels = dict(zip(classes, counts[index].tolist(), strict=True))
        rows.append({"client": name, "samples": len(shard), "labels": labels})
    return {
        "alpha": alpha,
        "labels_each": labels_each,
        "size_exponent": size_exponent,
        "seed": seed,
        "root": len(root),
        "samples": int(counts.sum()),
        "clients": rows,
        "input_noise": input_noise,
        "skew": {**skew_of(counts)._asdict(), **_input_skew(data, shards, seed)},
    }


def _input_skew(
    data: Data,
    shards: Sequence[Tensor],
    seed: int,
) -> dict[str, float | None]:
    """How far the clients' inputs are from the whole, and how far where clients of the same sizes
    are dealt them at random; None of a text.
    """
    if data.kind == "text":
        return dict.fromkeys(INPUT_FIGURES)
    away = input_distances(data.train.x, shards)
    dealt_samples = torch.cat(list(shards))
    order = torch.randperm(len(dealt_samples), generator=generator(seed, "dealt at random"))
    at_random = dealt_samples[order].split(list(map(len, shards)))
    chance = input_distances(data.train.x, at_random).mean()
    figures = (float(away.mean()), float(away.max()), float(chance))
    return dict(zip(INPUT_FIGURES, figures, strict=True))


def holding_lines(held: Holdings) -> Iterator[str]:
    """The lines that show a split."""
    rows = held["clients"]
    root = f", {held['root']} held out for the server" if held["root"] else ""
    drawn = held["alpha"] != "natural" or held["input_noise"]
    way = dealt(held) + f", seed {held['seed']}" * bool(drawn)
    yield f"{len(rows)} clients ({way}), {held['samples']} samples to train on{root}"
    yield from _table(rows)
    skew = held["skew"]
    yield (
        f"  labels: a client's differ from the whole by {skew['label_mean']:.2f} in the mean,"
        f" {skew['label_most']:.2f} at most (total variation, 0 to 1)"
    )
    yield (
        f"  sizes: the largest client has {skew['ratio']:.3g} times the samples of the smallest;"
        f" standard deviation {skew['spread']:.2f} of the mean"
    )
    if skew["input_mean"] is not None:
        yield (
            f"  inputs: a client's differ from the whole by {skew['input_mean']:.2f} in the mean,"
            f" {skew['input_most']:.2f} at most (standard deviations; dealt at random"
            f" {skew['input_chance']:.2f})"
        )
    single = [row["client"] for row in rows if row["samples"] == 1]
    if single:
        yield f"  note: {len(single)} of the clients have one sample, {single[0]} first"


def _table(rows: Sequence[Holdings]) -> Iterator[str]:
    """A line for each client, the labels in columns where they are few."""
    shown = rows[:SHOWN_CLIENTS]
    classes = list(rows[0]["labels"])
    heads = classes if len(classes) <= SHOWN_CLASSES else ["labels"]
    cells = [["client", "samples", *heads]]
    cells += [[row["client"], str(row["samples"]), *_labels(row["labels"])] for row in shown]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        first, *others = (
            f"{cell:<{width}}" if index == 0 else f"{cell:>{width}}"
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield f"  {'  '.join([first, *others])}"
    if len(rows) > len(shown):
        yield f"  … {len(rows) - len(shown)} more; --json has all"


def _labels(labels: Mapping[str, int]) -> list[str]:
    """The labels of a client, a cell each, or the most frequent in one."""
    if len(labels) <= SHOWN_CLASSES:
        return [str(count) for count in labels.values()]
    present = sorted((count, name) for name, count in labels.items() if count)
    most = ", ".join(f"{name} {count}" for count, name in reversed(present[-SHOWN_LABELS:]))
    rest = ", …" * (len(present) > SHOWN_LABELS)
    return [f"{len(present)} of {len(labels)} classes: {most}{rest}"]
