"""Where the arrays of an update stand in the vectors that a defense sees: parameters in one vector,
floating-point buffers in another, integer counters in none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backstop.platform.contract import Slot
from backstop.platform.library.forms import Array, UpdateForm, values_of
from backstop.platform.params import BadInput, nearest
from backstop.platform.training.network import Layout, Network, size

STATISTICS = ("running_mean", "running_var")  # torch's names for those of normalization layers


class Places(NamedTuple):
    """Which array of a form is what: indices into the form's arrays, in the order of the vectors.
    Arrays that are in none of them are counters.
    """

    params: tuple[int, ...]
    layout: Layout  # of the parameters; of a flat vector one slot, unless a model tells its layers
    buffers: tuple[int, ...]
    buffer_layout: Layout
    twins: Mapping[int, int]  # array that shares its values with another → that one
    layered: bool  # whether the layout tells the layers

    def param_values(self, arrays: Sequence[Array], device: torch.device) -> Tensor:
        """The parameters (d,) out of an update's or model's arrays."""
        return _joined([arrays[index] for index in self.params], device)

    def buffer_values(self, arrays: Sequence[Array], device: torch.device) -> Tensor:
        """The floating-point buffers (e,)."""
        return _joined([arrays[index] for index in self.buffers], device)

    def spread(self, params: Tensor, buffers: Tensor) -> dict[int, Tensor]:
        """The values (flat) of each array that is no counter, from both vectors."""
        values: dict[int, Tensor] = {}
        sizes = [slot.size for slot in self.layout]
        pieces = params.split(sizes) if len(self.params) > 1 else [params]
        values.update(zip(self.params, pieces, strict=True))
        if self.buffers:
            parts = buffers.split([slot.size for slot in self.buffer_layout])
            values.update(zip(self.buffers, parts, strict=True))
        return values | {twin: values[index] for twin, index in self.twins.items()}


def places_of(form: UpdateForm, net: Network | None) -> Places:
    """What each array of an update is. A model says it; without one, a floating-point array is a
    parameter unless its name ends in ``running_mean`` or ``running_var``.

    Raises BadInput where the arrays are not the model's.
    """
    if net is None:
        places = _by_name(form)
    elif form.kind == "vector":
        places = _whole(form, net)
    else:
        places = _by_model(form, net)
    if not size(places.layout):
        raise BadInput("updates hold no value at all; their parameters are empty")
    return places


def _by_name(form: UpdateForm) -> Places:
    floating = [index for index, array in enumerate(form.arrays) if array.floating]
    buffers = tuple(index for index in floating if _is_statistic(form.arrays[index].name))
    params = tuple(index for index in floating if index not in buffers)
    if not params:
        raise BadInput("updates hold no parameter, only statistics of normalization layers")
    return Places(
        params=params,
        layout=_layout(form, params),
        buffers=buffers,
        buffer_layout=_layout(form, buffers),
        twins={},
        layered=form.kind != "vector",
    )


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in STATISTICS


def _layout(form: UpdateForm, indices: Sequence[int]) -> Layout:
    slots, start = [], 0
    for index in indices:
        array = form.arrays[index]
        slots.append(Slot(array.name, start, array.shape))
        start += slots[-1].size
    return tuple(slots)


def _whole(form: UpdateForm, net: Network) -> Places:
    """A flat vector is the model's parameters one after another."""
    given, own = form.arrays[0].shape[0], size(net.layout)
    if given != own:
        raise BadInput(f"updates are vectors of {given} values; the model has {own} parameters")
    return Places((0,), net.layout, (), (), {}, layered=True)


def _by_model(form: UpdateForm, net: Network) -> Places:
    state = net.module.state_dict(keep_vars=True)
    names = _model_names(form, net, state)
    params = _indices(net.layout, names, form, "parameter")
    has_buffers = any(slot.name in names for slot in net.buffer_layout)
    buffer_layout = net.buffer_layout if has_buffers else ()
    buffers = _indices(buffer_layout, names, form, "buffer")
    return Places(
        params=params,
        layout=net.layout,
        buffers=buffers,
        buffer_layout=buffer_layout,
        twins=_twins(form, names, {*params, *buffers}, state),
        layered=True,
    )


def _model_names(form: UpdateForm, net: Network, state: Mapping[str, Any]) -> list[str]:
    """The model's name for each array. A list holds all of its state dict, or its parameters."""
    if form.kind == "named":
        return [array.name for array in form.arrays]
    parameters = [slot.name for slot in net.layout]
    for names in (list(state), parameters):
        if len(names) == len(form.arrays):
            return names
    raise BadInput(
        f"updates hold {len(form.arrays)} arrays; the model has {len(parameters)} parameters, and"
        f" its state dict {len(state)} entries"
    )


def _indices(layout: Layout, names: list[str], form: UpdateForm, what: str) -> tuple[int, ...]:
    """Where the arrays of the model's parameters or buffers stand in a form."""
    indices = []
    for slot in layout:
        if slot.name not in names:
            hint = nearest(slot.name, names)
            raise BadInput(f"updates lack the model's {what} {slot.name!r}; {hint}")
        index = names.index(slot.name)
        shape = form.arrays[index].shape
        if shape != slot.shape:
            raise BadInput(
                f"updates: {slot.name} has shape {shape}; the model's {what} has {slot.shape}"
            )
        indices.append(index)
    return tuple(indices)


def _twins(
    form: UpdateForm,
    names: list[str],
    taken: set[int],
    state: Mapping[str, Any],
) -> dict[int, int]:
    """Arrays under a second name: layers that share their weight. Any other floating-point array is
    none of the model's, and refused.
    """
    twins = {}
    for index, array in enumerate(form.arrays):
        if index in taken or not array.floating:
            continue
        own = state.get(names[index])
        first = next((other for other in taken if state.get(names[other]) is own), None)
        if not isinstance(own, nn.Parameter) or first is None:
            hint = nearest(array.name, state)
            raise BadInput(f"updates hold {array.name!r}, which the model has not; {hint}")
        twins[index] = first
    return twins


def _joined(arrays: Sequence[Array], device: torch.device) -> Tensor:
    if not arrays:
        return torch.zeros(0, device=device)
    return torch.cat([values_of(array, device) for array in arrays])
