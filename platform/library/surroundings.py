"""What a defense sees besides the updates, of a server that is not Backstop's: its view, made of
the model and the root set that the caller has, and without what the caller has not.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from backstop.platform import seeds
from backstop.platform.contract import (
    Attack,
    Buffers,
    Data,
    Kind,
    Part,
    Samples,
    ServerView,
    no_buffers,
    nobody_asked,
)
from backstop.platform.library.lacking import Partial
from backstop.platform.params import BadInput
from backstop.platform.rounds.views import State, Views
from backstop.platform.specs.spec import Spec
from backstop.platform.training.defense_chain import chain
from backstop.platform.training.federation import Federation
from backstop.platform.training.network import Layout, Network, Replica, network

NOBODY = Samples(torch.zeros(0), torch.zeros(0, dtype=torch.int64))


@dataclass(frozen=True, kw_only=True)
class PartialView(Partial, ServerView):
    """A server's view that lacks some fields."""

    lacking: frozenset[str]


class Surroundings(NamedTuple):
    """What one round's caller has given, as the platform has it."""

    spec: Spec
    round: int
    params: Tensor | None  # (d,)
    buffers: Tensor | None  # (e,); None: those of the model
    layout: Layout | None  # None: nobody knows the layers
    buffer_layout: Layout  # of the buffers that clients bring
    built: Federation | None  # of the model and the root set, where there is a model
    root: Samples | None
    counted: bool  # whether the clients' sample counts are known, by which a client trains

    def view(self, draws: str) -> PartialView:
        """What the server knows; ``draws`` names its generator."""
        fields = self._bare(draws) if self.built is None else self._of_model(self.built, draws)
        return PartialView(**fields, lacking=self._lacking())

    def _lacking(self) -> frozenset[str]:
        lacking = {"validate"}
        if self.params is None:
            lacking.add("params")
        if self.layout is None:
            lacking.add("layout")
        if self.buffers is None:
            lacking.add("buffers")
        if self.root is None:
            lacking.add("root")
        if self.built is None:
            lacking |= {"model", "features", "head", "classes", "train"}
        if not self.counted:
            lacking.add("train")
        return frozenset(lacking)

    def _of_model(self, built: Federation, draws: str) -> dict[str, Any]:
        params = built.net.params if self.params is None else self.params
        buffers = built.net.buffers if self.buffers is None else self.buffers
        state = State(self.round, params, buffers, None, None)
        return {**vars(Views(built, Path()).server(state, draws)), "buffers": self._unsent()}

    def _bare(self, draws: str) -> dict[str, Any]:
        return {
            "round": self.round,
            "params": self.params,
            "layout": self.layout,
            "model": None,
            "features": None,
            "head": (),
            "classes": 0,
            "generator": seeds.generator(self.spec.seed, draws, self.round),
            "train": None,
            "root": self.root,
            "server_lr": self.spec.server_lr,
            "buffers": self._unsent(),
            "validate": nobody_asked,
        }

    def _unsent(self) -> Buffers:
        """The buffers before a client has brought any."""
        unknown = no_buffers()
        if self.buffers is None:
            return unknown
        nobody = unknown.client.to(self.buffers.device)
        changes = self.buffers.new_zeros(0, len(self.buffers))
        return Buffers(nobody, changes, self.buffers, self.buffer_layout)


def flat_network(
    model: Any,
    root: Samples,
    spec: Spec,
    device: torch.device,
) -> tuple[Network, Data]:
    """A copy of the caller's model as one vector, and the root set as its data. Raises BadInput for
    what is no model.
    """
    if not isinstance(model, nn.Module):
        raise BadInput(f"model is {type(model).__name__}; give a torch.nn.Module")
    data = Data(train=root, test=root, classes=0, kind=_kind(root.x), root=root)
    net = _tried(copy.deepcopy(model), data, spec, device)
    classes = int(net.module.get_submodule(net.head).out_features)  # type: ignore[arg-type]
    if len(root.y) and int(root.y.max()) >= classes:
        raise BadInput(f"root holds the label {int(root.y.max())}; the model has {classes} outputs")
    return net, data._replace(classes=classes)


def _tried(
    module: nn.Module,
    data: Data,
    spec: Spec,
    device: torch.device,
) -> Network:
    """A model as one vector, once it has taken a sample, where there is one."""
    try:
        net = network(module, data, device, spec.batch)
        if len(data.train.x):
            with torch.no_grad():
                net.logits(net.params, data.train.x[:1])
    except BadInput:
        raise
    except Exception as error:
        shape, why = tuple(data.train.x.shape), " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(f"model cannot take root's x of shape {shape}: {why}") from error
    return net


def federation_of(
    spec: Spec,
    net: Network,
    data: Data,
    device: torch.device,
) -> Federation:
    """A federation without clients: a model, a root set, and how clients train. Messages call the
    model by its class.
    """
    called = Part(type(net.module).__name__)
    return Federation(
        spec=spec.replace(model=called),
        data=data,
        shards=(),
        sizes=(),
        malicious=torch.zeros(0, dtype=torch.int64),
        net=net,
        replica=Replica(net),
        attack=Attack(),
        trigger_stage=0,
        training_stages=(),
        defense=chain(),
        device=device,
    )


def read_root(root: Any, device: torch.device) -> Samples:
    """The server's clean samples, as tensors. Raises BadInput where they are no (x, y)."""
    if not isinstance(root, tuple | list) or len(root) != 2:
        raise BadInput(f"root is {type(root).__name__}; give (x, y), inputs and labels")
    x, y = (_tensor(part, name) for part, name in zip(root, ("x", "y"), strict=True))
    if y.ndim != 1 or y.is_floating_point() or x.ndim < 2 or len(x) != len(y) or not len(y):
        raise BadInput(
            f"root: x has shape {tuple(x.shape)}, y {tuple(y.shape)} of {y.dtype}; x is (n, …), and"
            " y holds n labels, whole numbers"
        )
    if int(y.min()) < 0:
        raise BadInput(f"root holds the label {int(y.min())}; labels count from 0")
    if x.is_floating_point():
        x = x.float()
        if not x.isfinite().all():
            raise BadInput("root: x holds a NaN or an infinity")
    elif x.dtype != torch.uint8:
        x = x.long()
    return Samples(x.to(device), y.long().to(device))


def _tensor(given: Any, name: str) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach()
    if isinstance(given, np.ndarray) and given.dtype.kind in "fiub":
        return torch.from_numpy(given.copy())
    raise BadInput(f"root: {name} is {type(given).__name__}; give an array of NumPy or of torch")


def _kind(x: Tensor) -> Kind:
    if x.ndim == 4:
        return "image"
    return "table" if x.is_floating_point() or x.dtype == torch.uint8 else "text"
