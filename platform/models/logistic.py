"""Multinomial logistic regression: one linear layer on the flattened input.

f(x) = W x + b.

Shapes: (N, …) → (N, classes); classes · (inputs + 1) parameters.

Source: D. R. Cox, "The Regression Analysis of Binary Sequences", Journal of the Royal Statistical
Society B 20(2), 1958, here with one output per class.

Deviations: none. The initial values are those of ``torch.nn.Linear``.

Example:
>>> import torch
>>> logistic()((1, 8, 8), 10)(torch.zeros(3, 1, 8, 8)).shape
torch.Size([3, 10])
"""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from backstop.platform.contract import Model

VERSION = 1
KINDS = ("image", "table")


def logistic() -> Model:
    """Multinomial logistic regression."""

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(
            OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(math.prod(shape), classes))
        )

    return build
