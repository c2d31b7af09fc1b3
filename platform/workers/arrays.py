"""Tensors as the NumPy arrays that the object store shares, and back."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor


def view(array: Any) -> Tensor:
    """A tensor on the memory of a read-only array; it is only ever read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def shareable(item: Any) -> Any:
    """A tensor as a numpy array, which the object store shares; other things as they are."""
    if isinstance(item, Tensor):
        return item.detach().cpu().numpy()
    return item
