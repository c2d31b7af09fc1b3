"""A model as one flat float32 vector, and the calls that take that vector.

Parameters go through the defense as one vector; floating-point buffers (BatchNorm statistics) form
a second vector that is averaged with the weights that the defense leaves the clients; integer
counters are never sent. Non-persistent buffers are constants of the model and belong to neither.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from backstop.platform.contract import Data, Slot
from backstop.platform.params import BadInput
from backstop.platform.robust import COMPILED
from backstop.platform.specs.spec import Precision
from backstop.platform.training.constants import constant_matrices
from backstop.platform.training.dense import (
    CACHED,
    LINE,
    Dense,
    dense_labels,
    read_dense,
    sure_labels,
)
from backstop.platform.training.dropout import Dropout
from backstop.platform.training.precision import arithmetic

Layout = tuple[Slot, ...]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)  # statistics of a batch
# batch size times parameters up to which a local step on a CPU is mostly overhead
LIGHT_MODEL = 1_000_000


def size(layout: Layout) -> int:
    """Number of values in the flat vector."""
    return sum(slot.size for slot in layout)


def _layout(tensors: Sequence[tuple[str, Tensor]]) -> Layout:
    slots, start = [], 0
    for name, tensor in tensors:
        slots.append(Slot(name, start, tuple(tensor.shape)))
        start += tensor.numel()
    return tuple(slots)


def _join(tensors: Sequence[tuple[str, Tensor]]) -> Tensor:
    if not tensors:
        return torch.empty(0)
    return torch.cat([tensor.detach().reshape(-1).float() for _, tensor in tensors])


def split(vector: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Name → view of the vector in the tensor's shape; differentiable, one concatenation in the
    backward pass.
    """
    pieces = torch.split(vector, [slot.size for slot in layout])
    pairs = zip(layout, pieces, strict=True)
    return {slot.name: piece.view(slot.shape) for slot, piece in pairs}


def to_unit_interval(x: Tensor) -> Tensor:
    """Inputs as attacks and models take them: uint8 images become float32 in [0, 1], everything
    else stays.
    """
    return x.float().div_(255) if x.dtype == torch.uint8 else x


class Network(NamedTuple):
    """A model, its initial vectors and their layouts. ``shift`` and ``scale`` normalize an input:
    (x - shift) * scale.
    """

    module: nn.Module
    layout: Layout
    buffer_layout: Layout
    params: Tensor  # (d,)
    buffers: Tensor  # (e,)
    shift: Tensor | None
    scale: Tensor | None
    vectorized: bool  # whether blocks of clients train together on this device
    convolutional: bool
    head: str  # name of the last linear layer
    keys: tuple[str, ...]  # names of the buffers that decide on the masks of dropout
    class_weights: Tensor | None  # (classes,): of the classes in the loss of local training
    # whether a local step needs two samples: of one, a BatchNorm layer has one value a channel
    pairs: bool
    precision: Precision = "float32"  # of the arithmetic between inputs and logits
    # (channels, 256): each pixel of an 8-bit image as the model takes it, where a compiled loop
    # lays images out
    pixels: Tensor | None = None
    dense: Dense | None = None  # where gradients are taken by hand

    @property
    def batch_norm(self) -> bool:
        """Whether it has BatchNorm layers with running statistics."""
        return any(slot.name.endswith("running_var") for slot in self.buffer_layout)

    def normalize(self, x: Tensor) -> Tensor:
        """Model input from images in [0, 1] (or uint8), tables or token ids.

        Batches of images for a convolution are laid out channels last: the same values, and on a
        CPU a step of a small CNN takes three quarters of the time.
        """
        if self.pixels is not None and x.dtype == torch.uint8 and x.dim() == 4:
            return _laid_out(x, self.pixels)
        x = to_unit_interval(x)
        if self.shift is not None and self.scale is not None:
            x = (x - self.shift) * self.scale
        if self.convolutional and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return x

    def logits(
        self,
        params: Tensor,
        x: Tensor,
        buffers: Tensor | None = None,
    ) -> Tensor:
        """Logits (b, classes) in evaluation mode; differentiable in params (d,) and x."""
        return self.forward(params, self.normalize(x), buffers)

    def forward(
        self,
        params: Tensor,
        x: Tensor,
        buffers: Tensor | None = None,
    ) -> Tensor:
        """Logits of inputs that are normalized already."""
        known = self.tensors(params, self.buffers if buffers is None else buffers)
        with self.arithmetic():
            logits: Tensor = functional_call(self.module, known, (x,))
        return logits.to(params.dtype)

    def labels(
        self,
        params: Tensor,
        batches: Sequence[Tensor],
        buffers: Tensor,
    ) -> list[Tensor]:
        """The labels (b,) predicted for batches (b, …) of inputs that are normalized already; -1
        where an output is not finite. Nobody asks for a gradient.
        """
        if self.dense is None:
            return [sure_labels(self.forward(params, x, buffers)) for x in batches]
        return dense_labels(list(batches), params, self.dense.flat)

    def arithmetic(self) -> AbstractContextManager[object]:
        """The model computes at its precision where it is called within."""
        return arithmetic(self.precision, self.params.device)

    def features(
        self,
        params: Tensor,
        x: Tensor,
        buffers: Tensor,
    ) -> Tensor:
        """What the last linear layer is given, (b, h), in evaluation mode; differentiable in params
        (d,) and x.
        """
        seen: list[Tensor] = []
        head = self.module.get_submodule(self.head)
        hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            self.logits(params, x, buffers)
        finally:
            hook.remove()
        return seen[-1].flatten(1).to(params.dtype)

    def head_slots(self) -> Layout:
        """Where the last linear layer's parameters stand: weight (classes, h), then bias (classes,)
        where there is one.
        """
        return tuple(slot for slot in self.layout if self._of_head(slot.name))

    def _of_head(self, name: str) -> bool:
        return name.rpartition(".")[0] == self.head

    def tensors(self, params: Tensor, buffers: Tensor) -> dict[str, Tensor]:
        """Name → tensor, as a state dict without integer counters."""
        tensors = split(params, self.layout)
        if self.buffer_layout:
            tensors |= split(buffers, self.buffer_layout)
        return tensors

    def vectors(self, known: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Parameters (d,) and buffers (e,) from a checkpoint's tensors.

        Every tensor of the model must be among them, with its shape, and no other floating-point
        one. The last linear layer alone may differ, as it does where the checkpoint was trained on
        other classes: then it keeps its fresh initial values.
        """
        own = {slot.name for slot in (*self.layout, *self.buffer_layout)}
        for name, tensor in known.items():
            if name in own or self._of_head(name):
                continue
            if tensor.is_floating_point():
                raise BadInput(
                    f"start: the model has no tensor {name!r}, which the checkpoint holds; is it "
                    "of another model?"
                )
        params = self._filled(self.params, self.layout, known)
        buffers = self._filled(self.buffers, self.buffer_layout, known)
        return params, buffers

    def _filled(
        self,
        vector: Tensor,
        layout: Layout,
        known: Mapping[str, Tensor],
    ) -> Tensor:
        vector = vector.clone()
        for slot in layout:
            tensor = known.get(slot.name)
            if tensor is not None and tuple(tensor.shape) == slot.shape:
                vector[slot.span] = tensor.flatten().to(vector)
            elif not self._of_head(slot.name):
                has = "no such tensor" if tensor is None else f"one of {tuple(tensor.shape)}"
                raise BadInput(
                    f"start: the model's {slot.name} is of shape {slot.shape}, the checkpoint has "
                    f"{has}"
                )
        return vector


def network(
    module: nn.Module,
    data: Data,
    device: torch.device,
    batch: int,
    precision: Precision = "float32",
    *,
    one_by_one: bool = False,
) -> Network:
    """Flatten a freshly built module; ``batch`` is the size of a local step. ``one_by_one``: nobody
    knows whether its bits are the same under vmap.
    """
    module = module.to(device).eval()
    parameters = list(module.named_parameters())
    buffers = _averaged(module)
    shift, scale = _normalization(data, device)
    layout = _layout(parameters)
    dense = _dense(module, layout, device, precision)
    net = Network(
        module=module,
        layout=layout,
        buffer_layout=_layout(buffers),
        params=_join(parameters).to(device),
        buffers=_join(buffers).to(device),
        shift=shift,
        scale=scale,
        vectorized=dense is not None or (not one_by_one and vectorized(module, device, batch)),
        convolutional=convolutional(module),
        head=_head(module),
        keys=_dropout_keys(module),
        class_weights=getattr(module, "class_weights", None),
        pairs=False,
        precision=precision,
        dense=dense,
    )
    x = data.train.x
    if net.convolutional and x.dtype == torch.uint8 and device.type == "cpu" and COMPILED:
        every = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, x.shape[1], 1, 1)
        net = net._replace(pixels=net.normalize(every)[:, :, 0, 0].t().contiguous())
    return net._replace(pairs=_pairs(net, x[:1].to(device)))


def _dense(
    module: nn.Module,
    layout: Layout,
    device: torch.device,
    precision: Precision,
) -> Dense | None:
    """The layers of a network whose gradients are taken by hand: on a CPU, in its own arithmetic,
    and where a block holds two clients at least.
    """
    if device.type != "cpu" or precision != "float32" or 2 * size(layout) > CACHED:
        return None
    return read_dense(module, layout)


def _laid_out(x: Tensor, pixels: Tensor) -> Tensor:
    """8-bit images (b, c, h, w) as the model takes them, channels last: the values of the plain way
    in one pass.
    """
    from backstop.platform.kernels import images

    samples, channels, height, width = x.shape
    out = torch.empty(samples, height, width, channels)
    images.lay_out(x.numpy(), pixels.numpy(), out.numpy())
    return out.permute(0, 3, 1, 2)


def _normalization(data: Data, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """The shift and the scale of inputs; None where the dataset has no mean and deviation."""
    if data.mean is None or data.std is None:
        return None, None
    shape = (-1, 1, 1) if data.kind == "image" else (-1,)
    mean = torch.tensor(data.mean, device=device)
    std = torch.tensor(data.std, device=device)
    return mean.view(shape), std.view(shape).reciprocal()


def _dropout_keys(module: nn.Module) -> tuple[str, ...]:
    layers = [name for name, part in module.named_modules() if isinstance(part, Dropout)]
    return tuple(f"{layer}.key" for layer in layers)


def _pairs(net: Network, sample: Tensor) -> bool:
    """Whether one sample (1, …) leaves some BatchNorm layer one value a channel, which has no
    variance to divide by; no where there is no sample (0, …) to look at.
    """
    counts: list[int] = []

    def count(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        (x,) = given
        channels = x.shape[1] if x.dim() > 1 else 1
        counts.append(x.numel() // (2 * channels))

    norms = [part for part in net.module.modules() if isinstance(part, NORMS)]
    hooks = [part.register_forward_pre_hook(count) for part in norms]
    try:
        if norms and len(sample):
            # two, because a layer without running averages would refuse one here, too
            with torch.no_grad():
                net.logits(net.params, torch.cat([sample, sample]))
    finally:
        for hook in hooks:
            hook.remove()
    return 1 in counts


def _averaged(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The buffers that are averaged: floating-point and part of the model's state."""
    kept = module.state_dict()
    return [
        (name, buffer)
        for name, buffer in module.named_buffers()
        if buffer.is_floating_point() and name in kept
    ]


def _head(module: nn.Module) -> str:
    linear: list[str] = [
        name for name, part in module.named_modules() if isinstance(part, nn.Linear)
    ]
    if not linear:
        raise BadInput(
            "the model has no linear layer; defenses look at the last one, which gives the logits"
        )
    return linear[-1]


def convolutional(module: nn.Module) -> bool:
    """Whether some layer is a convolution."""
    return any(isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) for part in module.modules())


def vectorized(
    module: nn.Module,
    device: torch.device,
    batch: int,
) -> bool:
    """Whether vmap over clients is exact and pays for this model, batch size and device.

    Batch statistics of padded batches would be wrong, with running averages and without, and
    recurrent layers have no batching rule: those train in a loop. A CPU computes stacked
    convolutions as grouped ones, slower than a loop (measured: 0.6 times as fast); where a step is
    mostly arithmetic, not overhead, padding costs more than vmap saves; and a client's sums have
    the same bits beside others only where its matrices begin as theirs do. A matrix that is a
    constant is one for all clients, whose inputs then are rows of one product: its bits may depend
    on how many there are.
    """
    parts = list(module.modules())
    recurrent = any(isinstance(part, nn.RNNBase) for part in parts)
    statistics = any(isinstance(part, NORMS) for part in parts)
    if recurrent or statistics or _averaged(module) or constant_matrices(module):
        return False
    if device.type != "cpu":
        return True
    parameters = sum(parameter.numel() for parameter in module.parameters())
    light = batch * parameters <= LIGHT_MODEL
    return light and _aligned(module) and not convolutional(module)


def _aligned(module: nn.Module) -> bool:
    """Whether every matrix begins at a multiple of LINE values in the flat vector."""
    slots = _layout(list(module.named_parameters()))
    return all(slot.start % LINE == 0 for slot in slots if len(slot.shape) > 1)


class Replica:
    """A copy of the model whose parameters and gradients are views of two flat vectors.

    A local step is then one backward pass and a few operations on ``params``; an update is one
    subtraction.
    """

    def __init__(self, net: Network) -> None:
        """Allocate the vectors and tie the module's parameters, gradients and buffers to them."""
        self.net = net
        self.params = net.params.clone()  # (d,)
        self.grad = torch.zeros_like(self.params)  # (d,)
        self.buffers = net.buffers.clone()  # (e,)
        self.module = copy.deepcopy(net.module).train()
        values = split(self.params, net.layout)
        grads = split(self.grad, net.layout)
        for name, parameter in self.module.named_parameters():
            parameter.data = values[name]
            parameter.grad = grads[name]
        views = split(self.buffers, net.buffer_layout) if net.buffer_layout else {}
        for name, view in views.items():
            owner, _, attribute = name.rpartition(".")
            # torch has no public way to make a buffer a view
            self.module.get_submodule(owner)._buffers[attribute] = view  # noqa: SLF001

    def load(self, params: Tensor, buffers: Tensor) -> None:
        """Start from these vectors; integer counters restart at zero."""
        self.params.copy_(params)
        self.buffers.copy_(buffers)

    def rekey(self, key: int) -> None:
        """Decide on the masks of dropout of the next step."""
        for name in self.net.keys:
            self.module.get_buffer(name).fill_(key)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits in training mode; ``backward`` adds to ``grad``."""
        with self.net.arithmetic():
            logits: Tensor = self.module(self.net.normalize(x))
        return logits.to(self.params.dtype)
