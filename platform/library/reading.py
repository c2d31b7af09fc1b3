"""What a caller hands over, read and checked: the basis of a round, and its rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backstop.platform.contract import Shares
from backstop.platform.library.forms import Array, UpdateForm, arrays_of, form_of, separate
from backstop.platform.library.identities import Id, Identities, read_ids
from backstop.platform.library.places import Places, places_of
from backstop.platform.library.surroundings import (
    NOBODY,
    Surroundings,
    federation_of,
    flat_network,
    read_root,
)
from backstop.platform.params import BadInput
from backstop.platform.specs.spec import Spec
from backstop.platform.training.network import size


class Extras(NamedTuple):
    """What a caller may give besides updates."""

    params: Any
    model: Any
    root: Any


class Basis(NamedTuple):
    """What a round starts from, as a defense takes it."""

    form: UpdateForm
    places: Places
    arrays: list[Array] | None  # of the global model
    surroundings: Surroundings

    @property
    def given(self) -> set[str]:
        """Which of the needs are met."""
        here = self.surroundings
        met = {
            "params": here.params is not None,
            "model": here.built is not None,
            "root": here.root is not None,
            "weights": here.counted,
            "layers": here.layout is not None,
            "buffers": here.buffers is not None,
        }
        return {need for need, is_met in met.items() if is_met}

    def update(self, params: Tensor, buffers: Tensor) -> Any:
        """An aggregate in the form of an update; counters are zero."""
        return self.form.put_together(self.places.spread(params, buffers))

    def whole_model(self, params: Tensor, buffers: Tensor) -> Any:
        """A model in the form of the global one, whose counters it has."""
        return self.form.put_together(self.places.spread(params, buffers), self.arrays)

    @property
    def buffers(self) -> Tensor:
        """Those of the global model (e,) that it came with."""
        assert self.arrays is not None
        return self.places.buffer_values(self.arrays, self.form.device)


class Brought(NamedTuple):
    """What n clients bring, in the order in which it was given."""

    form: UpdateForm
    arrays: list[list[Array]]
    clients: list[Id]
    weight: Tensor  # (n,)


class Rows(NamedTuple):
    """What n clients bring as two matrices, sorted by the numbers of the clients."""

    params: Tensor  # (n, d)
    buffers: Tensor  # (n, e)
    clients: list[Id]
    sent: Shares

    def less(self, basis: Basis) -> Rows:
        """Updates of models: each less the global one."""
        start = basis.surroundings.params
        assert start is not None
        return self._replace(params=self.params - start, buffers=self.buffers - basis.buffers)


def read_basis(
    form: UpdateForm,
    extras: Extras,
    spec: Spec,
    round_index: int,
    first: str,
    *,
    counted: bool = True,
) -> Basis:
    """What a round starts from. ``first`` says whose form it is, ``counted`` whether the clients'
    sample counts are given. Raises BadInput for what does not fit.
    """
    device = form.device
    root = None if extras.root is None else read_root(extras.root, device)
    net, built = None, None
    if extras.model is not None:
        net, data = flat_network(extras.model, root or NOBODY, spec, device)
        built = federation_of(spec, net, data, device)
    places = places_of(form, net)
    params, buffers, arrays = None, None, None
    if extras.params is not None:
        arrays = arrays_of(extras.params, form, "params", first)
        params = places.param_values(arrays, device)
        buffers = places.buffer_values(arrays, device) if places.buffers else None
        _check_finite(params, "params")
    return Basis(
        form,
        places,
        arrays,
        Surroundings(
            spec=spec,
            round=round_index,
            params=params,
            buffers=buffers,
            layout=places.layout if places.layered else None,
            buffer_layout=places.buffer_layout,
            built=built,
            root=root,
            counted=counted,
        ),
    )


def read_updates(given: Any, weights: Any, clients: Any, what: str) -> Brought:
    """What clients bring: updates or models, as ``what`` says. Raises BadInput where these are not
    of one form, or weights and ids not one for each.
    """
    items = separate(given, what)
    form = form_of(items[0], f"{what}[0]")
    arrays = [
        arrays_of(item, form, f"{what}[{index}]", f"{what}[0]") for index, item in enumerate(items)
    ]
    return Brought(
        form,
        arrays,
        read_ids(clients, len(arrays)),
        read_weights(weights, len(arrays), form.device),
    )


def in_rows(brought: Brought, basis: Basis, known: Identities) -> Rows:
    """What clients bring, as a defense takes it."""
    places, device = basis.places, basis.form.device
    numbers = [known.number(client) for client in brought.clients]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    client = torch.tensor([numbers[index] for index in order], device=device)
    rows = Rows(
        torch.empty(len(order), size(places.layout), device=device),
        torch.empty(len(order), size(places.buffer_layout), device=device),
        [brought.clients[index] for index in order],
        Shares(client, brought.weight[order]),
    )
    for row, index in enumerate(order):
        arrays = brought.arrays[index]
        rows.params[row] = places.param_values(arrays, device)
        rows.buffers[row] = places.buffer_values(arrays, device)
    return rows


def read_weights(weights: Any, count: int, device: torch.device) -> Tensor:
    """The sample counts (n,) as float32; None: one each. Raises BadInput for one that is not
    positive.
    """
    if weights is None:
        return torch.ones(count, device=device)
    try:
        read = torch.as_tensor(np.asarray(_on_cpu(weights), dtype=np.float32).copy())
    except (TypeError, ValueError):
        raise BadInput(f"weights={weights!r}; give the sample count of each client") from None
    if read.shape != (count,):
        raise BadInput(
            f"weights has shape {tuple(read.shape)} for {count} updates; give one number for each"
        )
    wrong = ~(read.isfinite() & (read > 0))
    if wrong.any():
        index = int(wrong.nonzero()[0])
        raise BadInput(
            f"weights[{index}]={read[index].item():g} is not allowed; a weight is a positive number"
            " of samples: leave clients without any out of the round"
        )
    return read.to(device)


def _on_cpu(weights: Any) -> Any:
    return weights.detach().cpu().numpy() if isinstance(weights, Tensor) else weights


def _check_finite(params: Tensor, what: str) -> None:
    if not params.isfinite().all():
        raise BadInput(f"{what} holds a NaN or an infinity; the global model has to be finite")
