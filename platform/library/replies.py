"""Which of what clients send can be used: no client ends a federation with what it sends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from backstop.platform.library.forms import Array
from backstop.platform.library.identities import Id

ModelArrays = Mapping[str, Array] | Sequence[Array]  # a state dict, or layers


class Reply(NamedTuple):
    """What one client sends."""

    client: Id
    arrays: ModelArrays
    weight: Any  # its sample count, as the client says


def unusable(reply: Reply, like: ModelArrays) -> str:
    """Why a reply cannot be used; empty where it can. ``like`` has the arrays that it should have.

    >>> layer = np.zeros((2, 3), "float32")
    >>> unusable(Reply(7, [layer], 50), [layer]), unusable(Reply(8, [layer[0]], 50), [layer])
    ('', 'array 0 has shape (3,), the model has (2, 3)')
    """
    weight = reply.weight
    if not isinstance(weight, int | float | np.number) or not 0 < weight < math.inf:
        return f"its sample count is {weight!r}"
    own, known = _named(reply.arrays), _named(like)
    strays = sorted(set(own) ^ set(known))
    if strays:
        return f"its arrays are not those of the model: {strays[0]}"
    for name, array in own.items():
        if not _has_numbers(array, known[name]):
            return f"array {name} is {type(array).__name__}, and no numbers as the model has them"
        shape, expected = tuple(array.shape), tuple(known[name].shape)
        if shape != expected:
            return f"array {name} has shape {shape}, the model has {expected}"
    return ""


def of_types(arrays: ModelArrays, like: ModelArrays) -> ModelArrays:
    """What a client sends, with the number types of ``like``, and its counters."""
    own, known = _named(arrays), _named(like)
    typed = {name: _of_type(own[name], known[name]) for name in known}
    return typed if isinstance(like, Mapping) else list(typed.values())


def _named(arrays: ModelArrays) -> dict[str, Array]:
    if isinstance(arrays, Mapping):
        return dict(arrays)
    return {str(position): array for position, array in enumerate(arrays)}


def _has_numbers(array: Any, like: Array) -> bool:
    if isinstance(like, Tensor):
        return isinstance(array, Tensor) and not array.is_complex()
    return isinstance(array, np.ndarray | np.generic) and array.dtype.kind in "fiub"


def _of_type(array: Array, like: Array) -> Array:
    if isinstance(like, Tensor):
        return array.to(like) if like.is_floating_point() else like
    if not np.issubdtype(like.dtype, np.floating):
        return like
    with np.errstate(over="ignore"):  # what becomes infinite is left out with its client
        return np.asarray(array, dtype=like.dtype)
