"""How unusual each of a few values is among the others, by their median."""

from __future__ import annotations

from torch import Tensor

# far above rounding: a value exactly at a limit is beyond it, whatever the order of the values
MARGIN = 1 - 1e-9


def deviations(values: Tensor) -> Tensor:
    """How far each of n values is above their median, in standard deviations of all of them; 0
    where all are equal. values (n,) → (n,) float64.

    >>> import torch
    >>> deviations(torch.tensor([1.0, 2.0, 3.0, 2.0]))
    tensor([-1.4142,  0.0000,  1.4142,  0.0000], dtype=torch.float64)
    """
    apart = values.double() - values.double().quantile(0.5)
    return (apart / values.double().std(correction=0)).nan_to_num(nan=0.0)


def usual(values: Tensor, radius: float) -> Tensor:
    """Which of n values are less than ``radius`` standard deviations from their median, on either
    side: the median Z-score. values (n,) → (n,) bool; all, where all are equal.

    >>> import torch
    >>> usual(torch.tensor([1.0, 2.0, 3.0, 2.0]), 1.0)
    tensor([False,  True, False,  True])
    """
    return deviations(values).abs() <= radius * MARGIN
