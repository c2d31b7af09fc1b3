"""Multilayer perceptron with batch normalization: a linear layer, BatchNorm and a rectifier, again
and again, on the flattened input.

h_0 = x, h_i = max(0, γ_i (W_i h_{i-1} + b_i - μ) / √(σ² + ε) + β_i), f(x) = W h_L + b, with μ and
σ² of the batch in training, and the running averages of both in evaluation.

Shapes: (N, …) → (N, classes).

Source: S. Ioffe, C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
Internal Covariate Shift", ICML 2015, section 3.2: normalization goes before the nonlinearity.

Deviations: none. The initial values, ε = 1e-5 and the averages' momentum of 0.1 are those of
``torch.nn.Linear`` and ``torch.nn.BatchNorm1d``. The running averages are buffers. Of a batch of
one sample a channel has no variance: a last batch of one joins the batch before it, and a run in
which a client has a single sample is refused.

Example:
>>> import torch
>>> net = normed_mlp(hidden="16-8")((30,), 2)
>>> [name for name, _ in net.named_buffers()][:2], net(torch.zeros(3, 30)).shape
(['norm1.running_mean', 'norm1.running_var'], torch.Size([3, 2]))
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from itertools import pairwise
from typing import Annotated

from torch import nn

from backstop.platform.contract import Model
from backstop.platform.params import BadInput, Range

VERSION = 1
KINDS = ("image", "table")
WIDEST = 65536


def normed_mlp(
    *,
    hidden: Annotated[
        int | str,
        Range(1, WIDEST, log=True, search=(16, 512)),
        "units of the hidden layers, e.g. 64 or 128-256",
    ] = 64,
) -> Model:
    """Multilayer perceptron with BatchNorm. Raises BadInput where ``hidden`` is not a list of
    widths.
    """
    words = str(hidden).split("-")
    if not all(re.fullmatch("[1-9][0-9]{0,4}", word) and int(word) <= WIDEST for word in words):
        raise BadInput(
            f"model normed_mlp: hidden={hidden!r} is not allowed; hidden is widths in"
            f" [1, {WIDEST}] joined by -, e.g. 64 or 128-256"
        )

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        widths = [math.prod(shape), *map(int, words)]
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for index, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            layers[f"linear{index}"] = nn.Linear(inputs, outputs)
            layers[f"norm{index}"] = nn.BatchNorm1d(outputs)
            layers[f"relu{index}"] = nn.ReLU()
        layers["output"] = nn.Linear(widths[-1], classes)
        return nn.Sequential(layers)

    return build
