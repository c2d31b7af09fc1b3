"""What malicious clients agree on: which way harm lies, the one row that all of them send, and
their samples, a piece at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from backstop.platform.contract import AttackView, Samples


def harmful_direction(honest: Tensor, direction: Literal["std", "unit", "sign"]) -> Tensor:
    """Away from honest rows (k, d), float64, at length 1 (d,): minus the standard deviation of each
    coordinate (std), minus the mean (unit), or minus the signs of the mean (sign).

    Source: V. Shejwalkar, A. Houmansadr, "Manipulating the Byzantine", NDSS 2021.

    >>> harmful_direction(torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64), "unit")
    tensor([-1., -0.], dtype=torch.float64)
    """
    if direction == "std":
        against = honest.std(0, correction=0)
    elif direction == "unit":
        against = honest.mean(0)
    else:
        against = honest.mean(0).sign()
    length = against.square().sum().sqrt()
    return -against / length.clamp_min(torch.finfo(torch.float64).tiny)


def all_alike(row: Tensor, rows: Tensor) -> Tensor:
    """One finite row (d,) for each of the malicious rows (m, d), in their type."""
    return row.to(rows).nan_to_num().repeat(len(rows), 1)


def own_samples(view: AttackView) -> Iterator[tuple[int, Samples]]:
    """The malicious clients of this round: (number of the client, its samples)."""
    for index in view.members.tolist():
        yield index, view.own(index)


def own_batches(view: AttackView, size: int) -> Iterator[tuple[int, Samples]]:
    """As :func:`own_samples`, at most ``size`` samples at a time."""
    for index, own in own_samples(view):
        for x, y in zip(own.x.split(size), own.y.split(size), strict=True):
            if len(y):
                yield index, Samples(x, y)
