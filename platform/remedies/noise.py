"""Inputs of no class, with which a server can ask a model what it has learned."""

from __future__ import annotations

import torch
from torch import Tensor


def noise_inputs(
    known: Tensor,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Uniform noise (count, …) shaped like ``known`` inputs (N, …): images in [0, 1], features
    between the smallest and the largest known one.

    >>> noise = noise_inputs(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), 4, torch.Generator())
    >>> noise.shape, bool((noise[:, 0] >= 1).all()), bool((noise[:, 1] == 5).all())
    (torch.Size([4, 2]), True, True)
    """
    draws = torch.rand(count, *known.shape[1:], generator=generator).to(known.device)
    low, high = (0.0, 1.0) if known.dim() > 2 else (known.amin(0), known.amax(0))
    return low + draws * (high - low)
