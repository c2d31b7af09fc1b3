"""Weak differential privacy, step by step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tests import reference

Array = npt.NDArray[np.float64]

CHOICES = {"norm": [1e-2, 1.0, 1e3], "noise": [0.0, 1e-3, 1.0], "weights": ["equal", "samples"]}


def weak_dp(
    rows: Array, weight: Array, norm: float, noise: float, weights: str, generator: torch.Generator
) -> Array:
    """The mean of clipped rows, plus noise."""
    draws: Array = torch.randn(rows.shape[1], generator=generator).double().numpy()
    return reference.norm_clip(rows, weight, norm, weights) + noise * draws
