"""Samples of one's own in a training and a test part, as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from backstop.platform.contract import Column, Data, Kind, Reading, Samples
from backstop.platform.intake.checks import scale
from backstop.platform.intake.npz import Numbered
from backstop.platform.intake.readings import FORMS
from backstop.platform.intake.tables import held_out, repeats
from backstop.platform.params import BadInput


class Parts(NamedTuple):
    """Training and test part as they stand."""

    train: Samples
    test: Samples
    classes: tuple[str, ...]
    owners: Numbered | None  # of the training part


def _codes(x: Tensor) -> Tensor:
    """(N, 1) int64: equal inputs have equal numbers."""
    _, numbers = np.unique(x.flatten(1).numpy(), axis=0, return_inverse=True)
    return torch.from_numpy(numbers.reshape(-1, 1))


def draw_test_part(
    parts: Parts,
    share: float,
    generator: torch.Generator,
) -> Parts:
    """The parts with a test part drawn from the training part: a share of the distinct inputs with
    all copies.
    """
    x, y = parts.train
    tested = held_out(_codes(x), share, generator)
    owners = parts.owners
    if owners is not None:
        owners = owners._replace(number=owners.number[~tested])
    return parts._replace(
        train=Samples(x[~tested], y[~tested]),
        test=Samples(x[tested], y[tested]),
        owners=owners,
    )


def check_all_trained(parts: Parts, path: Path) -> None:
    """Raise BadInput where a class has no training samples."""
    counts = parts.train.y.bincount(minlength=len(parts.classes)).tolist()
    for name, count in zip(parts.classes, counts, strict=True):
        if not count:
            raise BadInput(
                f"{path}: class {name!r} has no training samples, all are test samples; choose"
                " another seed or a smaller test"
            )


def as_data(
    parts: Parts,
    path: Path,
    kind: Kind,
) -> tuple[Data, list[Column]]:
    """The dataset on its own scale, and the features that are left out."""
    train, test, left_out = parts.train, parts.test, []
    if kind == "table" and train.x.shape[1:] == test.x.shape[1:]:
        varied = (train.x != train.x[0]).any(0)
        if not varied.any():
            raise BadInput(f"{path}: all training rows of x are equal")
        left_out = [
            Column(f"feature {index}", "left out", 0, "one value in the training part")
            for index in (~varied).nonzero().flatten().tolist()
        ]
        train, test = train._replace(x=train.x[:, varied]), test._replace(x=test.x[:, varied])
    mean, std = (None, None) if kind == "text" else _scale(train.x)
    if std is not None and min(std) == 0:
        raise BadInput(f"{path}: all training images have one value in all pixels of a channel")
    data = Data(
        train,
        test,
        classes=len(parts.classes),
        kind=kind,
        mean=mean,
        std=std,
        client=None if parts.owners is None else parts.owners.number,
    )
    return data, left_out


def _scale(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel or feature of the training part."""
    if x.dtype == torch.uint8:
        return scale(x)
    axes = [0, 2, 3] if x.ndim == 4 else [0]
    exact = x.double()
    return tuple(exact.mean(axes).tolist()), tuple(exact.std(axes).tolist())


def reading_of(
    path: str,
    data: Data,
    parts: Parts,
    left_out: list[Column],
) -> Reading:
    """What became of the files."""
    labels = torch.cat([data.train.y, data.test.y]).bincount(minlength=data.classes).tolist()
    copies, across = repeats(data.train.x, data.test.x)
    sides = "×".join(map(str, data.train.x.shape[1:]))
    return Reading(
        source=path,
        rows=len(data.train.y) + len(data.test.y),
        dropped={},
        classes=dict(zip(parts.classes, labels, strict=True)),
        train=len(data.train.y),
        test=len(data.test.y),
        copies=copies,
        across=across,
        columns=tuple(left_out),
        form=f"{sides} {FORMS[data.kind]}",
        clients=() if parts.owners is None else parts.owners.names,
    )
