"""Multilayer perceptron: linear layers with rectifiers between them, on the flattened input.

h_0 = x, h_i = max(0, W_i h_{i-1} + b_i), f(x) = W h_L + b.

Shapes: (N, …) → (N, classes).

Source: D. E. Rumelhart, G. E. Hinton, R. J. Williams, "Learning Representations by Back-Propagating Errors", Nature 323, 1986;
rectifiers: X. Glorot, A. Bordes, Y. Bengio, "Deep Sparse Rectifier Neural Networks", AISTATS 2011. ``hidden=128-256`` is the network for
phishing data of X. Wang, D. Dimitriadis, S. Koyejo, S. Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024.

Deviations: none of that network's dropout, since local training draws nothing inside the model. The initial values are those of ``torch.nn.Linear``.

Example:
>>> import torch
>>> net = mlp(hidden="128-256")((30,), 2)
>>> [name for name, _ in net.named_parameters()][:4], net(torch.zeros(3, 30)).shape
(['linear1.weight', 'linear1.bias', 'linear2.weight', 'linear2.bias'], torch.Size([3, 2]))
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


def mlp(
    *,
    hidden: Annotated[int | str, Range(1, WIDEST, log=True, search=(16, 512)), "units of the hidden layers, e.g. 64 or 128-256"] = 64,
) -> Model:
    """Multilayer perceptron. Raises BadInput where ``hidden`` is not a list of widths."""
    words = str(hidden).split("-")
    if not all(re.fullmatch("[1-9][0-9]{0,4}", word) and int(word) <= WIDEST for word in words):
        raise BadInput(f"model mlp: hidden={hidden!r} is not allowed; hidden is widths in [1, {WIDEST}] joined by -, e.g. 64 or 128-256")
    inner = [int(word) for word in words]

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for number, (inputs, outputs) in enumerate(pairwise([math.prod(shape), *inner]), start=1):
            layers[f"linear{number}"] = nn.Linear(inputs, outputs)
            layers[f"relu{number}"] = nn.ReLU()
        layers["output"] = nn.Linear(inner[-1], classes)
        return nn.Sequential(layers)

    return build
