"""Inputs and labels as attacks take them, of whatever arrays a caller has; what comes back has the
form of what was given.

>>> images = np.zeros((2, 8, 8, 3), "uint8")
>>> x = read_inputs(images, ("image",), "trigger badnets", "last")
>>> x.shape, written(x, x, images, "last").shape
(torch.Size([2, 3, 8, 8]), (2, 8, 8, 3))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from backstop.platform.contract import Kind, Samples
from backstop.platform.params import BadInput
from backstop.platform.training.evaluate import to_bytes

Channels = Literal["first", "last"]
COLORS = (1, 3, 4)  # channels that images have
INPUT_SHAPES: Mapping[Kind, tuple[int, str]] = {  # axes, and how they are said
    "image": (4, "images are (n, channels, h, w), or (n, h, w, channels) with channels='last'"),
    "table": (2, "tables are (n, features)"),
    "text": (2, "documents are (n, length), token ids"),
}


def check_channels(channels: Any, where: str) -> None:
    """Raise BadInput for what says not where images have their colors."""
    if channels not in get_args(Channels):
        raise BadInput(f"{where}: channels={channels!r} is not allowed; channels is first or last")


def input_kind(kinds: Sequence[Kind], axes: int, floating: bool) -> Kind:
    """The kind of inputs: what an attack is for, where that is one, else what they look like."""
    if len(kinds) == 1:
        return kinds[0]
    if axes == INPUT_SHAPES["image"][0]:
        return "image"
    return "table" if floating else "text"


def read_inputs(
    inputs: Any,
    kinds: Sequence[Kind],
    where: str,
    channels: Channels,
) -> Tensor:
    """The inputs as an attack on data of these kinds takes them, channels first; uint8 stays.
    Raises BadInput where it cannot.
    """
    x = read_array(inputs, where)
    kind = input_kind(kinds, x.ndim, x.is_floating_point())
    axes, words = INPUT_SHAPES[kind]
    if x.ndim != axes or not len(x):
        raise BadInput(f"{where}: inputs of shape {tuple(x.shape)}; {words}")
    if kind == "image":
        return _read_images(x, where, channels)
    if x.is_floating_point() != (kind == "table"):
        number = "floating-point numbers" if kind == "table" else "whole numbers"
        raise BadInput(f"{where}: inputs of {x.dtype}; {words}, {number}")
    return x.float() if kind == "table" else x.long()


def _read_images(x: Tensor, where: str, channels: Channels) -> Tensor:
    if channels == "last":
        x = x.permute(0, 3, 1, 2).contiguous()
    elif x.shape[1] not in COLORS and x.shape[3] in COLORS:
        raise BadInput(
            f"{where}: images of shape {tuple(x.shape)} seem to have their channels last; give"
            " channels='last'"
        )
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        raise BadInput(f"{where}: images of {x.dtype}; they are floats in [0, 1] or uint8")
    x = x.float()
    low, high = x.min().item(), x.max().item()
    if not (low >= 0 and high <= 1):
        raise BadInput(
            f"{where}: images with values from {low:g} to {high:g}; they are floats in [0, 1] or"
            " uint8: stamp them before they are normalized"
        )
    return x


def written(changed: Tensor, x: Tensor, inputs: Any, channels: Channels) -> Any:
    """What an attack made of ``x``, as the inputs were given. What it leaves alone has the bits of
    the inputs, doubles too.
    """
    if x.dtype == torch.uint8 and changed.is_floating_point():
        changed = to_bytes(changed)
    where = changed != x
    if channels == "last" and changed.ndim == INPUT_SHAPES["image"][0]:
        changed, where = (each.permute(0, 2, 3, 1) for each in (changed, where))
    if isinstance(inputs, Tensor):
        given = inputs.detach()
        return changed.to(given.dtype).where(where, given).contiguous()
    return np.where(where.numpy(), changed.numpy().astype(inputs.dtype), inputs)


def read_samples(data: Any, where: str) -> Samples:
    """Samples (x, y), x as an attack takes it but for the place of colors. Raises BadInput where
    they are none.
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise BadInput(f"{where} is {type(data).__name__}; give (x, y), inputs and labels")
    x, y = (read_array(part, where) for part in data)
    if y.ndim != 1 or len(x) != len(y) or not len(y) or y.is_floating_point():
        raise BadInput(
            f"{where} of shapes {tuple(x.shape)} and {tuple(y.shape)}; x is (n, …), and y"
            " holds n labels, whole numbers"
        )
    x = x.float() if x.is_floating_point() else x.long()
    return Samples(x, y.long())


def read_array(given: Any, where: str) -> Tensor:
    """A tensor of its own, or BadInput."""
    if isinstance(given, Tensor):
        return given.detach().clone()
    if isinstance(given, np.ndarray) and given.dtype.kind in "fiub":
        return torch.from_numpy(given.copy())
    raise BadInput(f"{where}: {type(given).__name__} is no array of NumPy or of torch")
