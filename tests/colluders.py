"""Honest updates, and directions away from them, for tests of clients that all send one row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from backstop.platform.seeds import generator

DIRECTIONS = ("unit", "std", "sign")


def cohort(draw: int, n: int = 8) -> Tensor:
    """Honest updates that agree a little, of different lengths."""
    draws = generator(0, "tests", "honest", draw)
    rows = torch.randn(n, 20, generator=draws) + 0.5
    return rows * torch.rand(n, 1, generator=draws) * torch.logspace(-2, 1, 20)


def against(honest: Any, direction: str) -> Any:
    """The direction of the harm, in NumPy."""
    mean = honest.mean(0)
    if direction == "unit":
        return -mean / np.linalg.norm(mean)
    return -honest.std(0) if direction == "std" else -np.sign(mean)
