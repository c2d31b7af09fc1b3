"""Multilayer perceptron: linear layers with rectifiers between them, on the flattened input.

h_0 = x, h_i = dropout(max(0, W_i h_{i-1} + b_i)), f(x) = W h_L + b; loss of a batch: Σ w_y ℓ(f(x),
y) / Σ w_y with class weights w.

Shapes: (N, …) → (N, classes).

Source: D. E. Rumelhart, G. E. Hinton, R. J. Williams, "Learning Representations by Back-Propagating
Errors", Nature 323, 1986; rectifiers: X. Glorot, A. Bordes, Y. Bengio, "Deep Sparse Rectifier
Neural Networks", AISTATS 2011; dropout: N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R.
Salakhutdinov, JMLR 15, 2014. ``hidden=128-256`` with dropout and ``class_weights=16-1`` is the
network for tables of X. Wang, D. Dimitriadis, S. Koyejo, S. Tople, "Invariant Aggregator for
Defending against Federated Backdoor Attacks", AISTATS 2024.

Deviations: none. The initial values are those of ``torch.nn.Linear``. The class weights count in
local training: that of honest clients, and that of an attack's own where it takes the loss that it
is given (``TrainView.loss``).

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

import torch
from torch import nn

from backstop.platform.contract import Model
from backstop.platform.params import BadInput, Range
from backstop.platform.training.dropout import Dropout

VERSION = 1
KINDS = ("image", "table")
WIDEST = 65536


def mlp(
    *,
    hidden: Annotated[
        int | str,
        Range(1, WIDEST, log=True, search=(16, 512)),
        "units of the hidden layers, e.g. 64 or 128-256",
    ] = 64,
    dropout: Annotated[
        float,
        Range(0, 1, high_open=True, search=(0, 0.5)),
        "share of each hidden layer's units that a training step drops",
    ] = 0.0,
    class_weights: Annotated[
        str | None,
        "weights of the classes in the loss of local training, e.g. 16-1; none: all alike",
    ] = None,
) -> Model:
    """Multilayer perceptron. Raises BadInput where ``hidden`` is not a list of widths or
    ``class_weights`` not one weight for each class.
    """
    words = str(hidden).split("-")
    if not all(re.fullmatch("[1-9][0-9]{0,4}", word) and int(word) <= WIDEST for word in words):
        raise BadInput(
            f"model mlp: hidden={hidden!r} is not allowed; hidden is widths in [1, {WIDEST}] "
            "joined by -, e.g. 64 or 128-256"
        )
    inner = [int(word) for word in words]
    weights = _weights(class_weights)

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        net = _network([math.prod(shape), *inner], classes, dropout)
        if weights:
            if len(weights) != classes:
                raise BadInput(
                    f"model mlp: class_weights={class_weights} are {len(weights)} weights; the "
                    f"data have {classes} classes"
                )
            net.register_buffer("class_weights", torch.tensor(weights), persistent=False)
        return net

    return build


def _network(
    widths: list[int],
    classes: int,
    dropout: float,
) -> nn.Sequential:
    """From an input of the first width through hidden layers of the others."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for index, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        layers[f"linear{index}"] = nn.Linear(inputs, outputs)
        layers[f"relu{index}"] = nn.ReLU()
        if dropout:
            layers[f"dropout{index}"] = Dropout(dropout, index)
    layers["output"] = nn.Linear(widths[-1], classes)
    return nn.Sequential(layers)


def _weights(text: str | None) -> list[float]:
    words = [] if text is None else text.split("-")
    if not all(re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", word) and float(word) for word in words):
        raise BadInput(
            f"model mlp: class_weights={text!r} is not allowed; class_weights is positive numbers "
            "joined by -, e.g. 16-1 or 1-2.5"
        )
    return [float(word) for word in words]
