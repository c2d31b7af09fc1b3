"""What each client has of its own from round to round: a part of the model that no client sends, a
whole model beside the one that all train together, or what it remembers.

It is one flat vector (p,) for each client that has trained; of a model it is cut out of parameters
and buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Carry, ChangeGradient, Defense, Private
from backstop.platform.params import BadInput
from backstop.platform.training.network import NORMS, Layout, Network

Vectors = tuple[Tensor, Tensor]  # parameters (d,) and floating-point buffers (e,)


class Keeping(NamedTuple):
    """Where what clients keep stands in the vectors, and how it is trained."""

    private: tuple[Tensor, Tensor] | None  # (d,) and (e,) bool; None: a whole model of their own
    epochs: int | None = None  # in which what is private is trained alone, before the rest
    personal: ChangeGradient | None = None  # how a model of their own is trained
    carry: Carry[Any] | None = None  # what clients remember instead, which is no part of a model

    @property
    def withheld(self) -> Tensor | None:
        """(d,) bool: where rows hold 0; None where clients send all of the model."""
        return None if self.private is None else self.private[0]

    def taken(self, vectors: Vectors) -> Tensor:
        """What a client with this model keeps, (p,)."""
        if self.private is None:
            return torch.cat(vectors)
        return torch.cat([vector[own] for vector, own in zip(vectors, self.private, strict=True)])

    def used(self, vectors: Vectors, own: Tensor | None) -> Vectors:
        """The model that a client uses, of the global one and of its own (p,); the global one where
        it has nothing of its own yet.
        """
        if own is None or self.carry:
            return vectors
        if self.private is None:
            return own[: len(vectors[0])], own[len(vectors[0]) :]
        first = int(self.private[0].sum())
        params, buffers = (vector.clone() for vector in vectors)
        params[self.private[0]] = own[:first]
        buffers[self.private[1]] = own[first:]
        return params, buffers

    def shown(self, models: Tensor, own: Tensor | None) -> Tensor:
        """Models (k, d) as a client has them that scores them: with its own part in each."""
        if self.private is None or own is None:
            return models
        models = models.clone()
        models[:, self.private[0]] = own[: int(self.private[0].sum())]
        return models

    def start(self, vectors: Vectors, own: Tensor | None) -> Vectors:
        """The model from which a client trains what it sends."""
        return vectors if self.private is None else self.used(vectors, own)

    def held(self, moved: Vectors, before: Vectors) -> Vectors:
        """A global model that has moved, where nothing moves what stays with the clients."""
        if self.private is None:
            return moved
        return self.used(moved, self.taken(before))

    def mean(self, kept: Iterable[Tensor]) -> Tensor | None:
        """What several clients keep, in the mean; None of none."""
        every = list(kept)
        return torch.stack(every).mean(0) if every else None


def keeping_of(
    defense: Defense,
    net: Network,
    model: str,
    stage: str,
) -> Keeping | None:
    """What clients keep under a defense; None where they keep nothing. Raises BadInput where the
    model has no such part; ``model`` and ``stage``, the one that keeps it, are names for that.
    """
    local = defense.local
    if local is None:
        return None
    if local.carry:
        return Keeping(None, carry=local.carry)
    if local.personal:
        return Keeping(None, personal=local.personal)
    if local.private is None:
        return None
    return _private(local.private, net, f"defense {stage}: clients keep their", f"model {model}")


def _private(
    private: Private,
    net: Network,
    keep: str,
    model: str,
) -> Keeping:
    layers = {net.head} if private.part == "head" else _norms(net)
    if not layers:
        raise BadInput(
            f"{keep} BatchNorm layers, and {model} has none; take one that has: normed_mlp,"
            " resnet18(norm=batch)"
        )
    where = net.params.device
    params = _mask(net.layout, layers.__contains__, where)
    buffers = _mask(net.buffer_layout, layers.__contains__, where)
    if params.all():
        raise BadInput(
            f"{keep} {private.part}, and {model} is nothing else, so nothing would be trained"
            " together; take a model with more layers"
        )
    return Keeping((params, buffers), private.epochs)


def _norms(net: Network) -> set[str]:
    """The names of the BatchNorm layers."""
    return {name for name, part in net.module.named_modules() if isinstance(part, NORMS)}


def _mask(
    layout: Layout,
    is_kept: Callable[[str], bool],
    where: torch.device,
) -> Tensor:
    """The places of the layers' tensors."""
    marks = [torch.full((slot.size,), is_kept(slot.name.rpartition(".")[0])) for slot in layout]
    return torch.cat([torch.empty(0, dtype=torch.bool), *marks]).to(where)
