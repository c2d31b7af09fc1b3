"""The forms in which updates and models come: a flat vector, a list of arrays, or a mapping from
names to arrays; NumPy's arrays or torch's tensors. What goes out has the form of what came in.

>>> form = form_of({"w": np.ones((2, 3)), "steps": np.array(7)}, "updates[0]")
>>> form.kind, [array.name for array in form.arrays if array.floating]
('named', ['w'])
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backstop.platform.params import BadInput, nearest

FormKind = Literal["vector", "layers", "named"]
Array = Any  # an np.ndarray, a NumPy scalar or a torch.Tensor
LEGAL_FORMS = (
    "an update or model is a flat vector (d,), a list of arrays or a mapping from names to arrays,"
    " of NumPy or of torch"
)


class FormArray(NamedTuple):
    """One array of an update or model."""

    name: str  # its key; its number in a list
    shape: tuple[int, ...]
    floating: bool
    like: Array  # one that was given: its type, dtype and device are those of what goes out


class UpdateForm(NamedTuple):
    """How one update or model is given."""

    kind: FormKind
    container: type
    arrays: tuple[FormArray, ...]

    @property
    def device(self) -> torch.device:
        """Where the first array is; NumPy's arrays are on the CPU."""
        like = self.arrays[0].like
        return like.device if isinstance(like, Tensor) else torch.device("cpu")

    def put_together(
        self,
        values: Mapping[int, Tensor],
        counters: Sequence[Array] | None = None,
    ) -> Any:
        """One update or model of this form: of the arrays at some indices the values, flat and
        float32; the others are copies of ``counters``, zero without these.
        """
        made = []
        for index, array in enumerate(self.arrays):
            if index in values:
                made.append(_like(values[index], array))
            elif counters is None:
                made.append(_zeros(array.like))
            else:
                made.append(_copied(counters[index]))
        if self.kind == "vector":
            return made[0]
        if self.kind == "layers":
            return tuple(made) if issubclass(self.container, tuple) else made
        named = zip((array.name for array in self.arrays), made, strict=True)
        return OrderedDict(named) if issubclass(self.container, OrderedDict) else dict(named)


def form_of(given: Any, where: str) -> UpdateForm:
    """The form of one client's update, or of a model. Raises BadInput where it has none."""
    kind, named = _named(given, where)
    arrays = tuple(_form_array(name, array, where, kind) for name, array in named.items())
    if not any(array.floating for array in arrays):
        raise BadInput(f"{where} holds no floating-point array; {LEGAL_FORMS}")
    return UpdateForm(kind, type(given), arrays)


def arrays_of(given: Any, form: UpdateForm, where: str, first: str) -> list[Array]:
    """The arrays of an update or model that has to be of a form, in the order of the form's.
    ``first`` says whose form it is. Raises BadInput where it is another one.
    """
    kind, named = _named(given, where)
    if kind != form.kind:
        raise BadInput(f"{where} is {_WORDS[kind]}, {first} is {_WORDS[form.kind]}; give one form")
    _check_names(list(named), form, where, first)
    arrays = []
    for array in form.arrays:
        other = _form_array(array.name, named[array.name], where, kind)
        called = _called(where, array.name, kind)
        if other.shape != array.shape:
            raise BadInput(f"{called} has shape {other.shape}, that of {first} {array.shape}")
        if isinstance(other.like, Tensor) != isinstance(array.like, Tensor):
            raise BadInput(
                f"{called} is {_library(other.like)}, that of {first} is {_library(array.like)};"
                " give all arrays of one kind"
            )
        if other.floating != array.floating:
            raise BadInput(
                f"{called} is of {other.like.dtype}, that of {first} of {array.like.dtype};"
                " integers are counters and never aggregated"
            )
        arrays.append(other.like)
    return arrays


def separate(updates: Any, what: str) -> list[Any]:
    """The clients' updates (or models, as ``what`` says) one by one. Raises BadInput where they are
    not a matrix (n, d) or a sequence.
    """
    if isinstance(updates, np.ndarray | Tensor):
        if updates.ndim != 2:
            raise BadInput(
                f"{what} is one array of shape {tuple(updates.shape)}; as one array it is (n, d),"
                " a row for each client"
            )
        updates = list(updates)
    elif isinstance(updates, Mapping):
        raise BadInput(f"{what} is one mapping; give a list with the update of each client")
    elif not isinstance(updates, Sequence) or isinstance(updates, str | bytes):
        raise BadInput(
            f"{what} is {type(updates).__name__}; give an array (n, d), or a list with an update"
            f" for each client; {LEGAL_FORMS}"
        )
    if not updates:
        raise BadInput(f"{what} is empty; a round has one client at least")
    return list(updates)


def values_of(array: Array, device: torch.device) -> Tensor:
    """An array's values as one flat float32 vector, a copy unless it is that already. What float32
    cannot hold becomes infinite.
    """
    if isinstance(array, Tensor):
        return array.detach().reshape(-1).to(device, torch.float32)
    with np.errstate(over="ignore"):
        copied = np.array(array, dtype=np.float32)
    return torch.from_numpy(copied).reshape(-1).to(device)


_WORDS: dict[FormKind, str] = {
    "vector": "a flat vector",
    "layers": "a list of arrays",
    "named": "a mapping",
}


def _named(given: Any, where: str) -> tuple[FormKind, dict[str, Any]]:
    """The arrays by their names."""
    if _is_array(given):
        if given.ndim != 1:
            raise BadInput(f"{where} is one array of shape {tuple(given.shape)}; {LEGAL_FORMS}")
        return "vector", {"0": given}
    if isinstance(given, Mapping):
        return "named", {str(name): array for name, array in given.items()}
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return "layers", {str(index): array for index, array in enumerate(given)}
    raise BadInput(f"{where} is {type(given).__name__}; {LEGAL_FORMS}")


def _form_array(name: str, array: Any, where: str, kind: FormKind) -> FormArray:
    called = _called(where, name, kind)
    if not _is_array(array):
        raise BadInput(f"{called} is {type(array).__name__}; {LEGAL_FORMS}")
    if isinstance(array, Tensor):
        floating = array.is_floating_point()
        known = floating or not array.is_complex()
        known = known and array.layout == torch.strided
    else:
        floating = np.issubdtype(array.dtype, np.floating)
        known = floating or array.dtype.kind in "iub"
    if not known or (kind == "vector" and not floating):
        kept = getattr(array, "layout", torch.strided)
        shown = array.dtype if kept == torch.strided else kept
        raise BadInput(f"{called} is of {shown}; updates and models are floating-point numbers")
    return FormArray(name, tuple(array.shape), floating, array)


def _check_names(names: list[str], form: UpdateForm, where: str, first: str) -> None:
    known = [array.name for array in form.arrays]
    if form.kind == "layers" and len(names) != len(known):
        raise BadInput(f"{where} holds {len(names)} arrays, {first} holds {len(known)}")
    for name in known:
        if name not in names:
            raise BadInput(f"{where} has no array {name!r}, which {first} has")
    for name in names:
        if name not in known:
            raise BadInput(
                f"{where} has an array {name!r}, {first} has none; {nearest(name, known)}"
            )


def _called(where: str, name: str, kind: FormKind) -> str:
    """An array as a message names it: ``updates[2]['fc.weight']``."""
    key = {"vector": "", "layers": f"[{name}]", "named": f"[{name!r}]"}
    return where + key[kind]


def _library(array: Array) -> str:
    return "a torch tensor" if isinstance(array, Tensor) else "a NumPy array"


def _is_array(given: Any) -> bool:
    return isinstance(given, np.ndarray | np.generic | Tensor)


def _like(value: Tensor, array: FormArray) -> Array:
    """A value as the type of array that was given, with its shape, dtype and device."""
    value, like = value.reshape(array.shape), array.like
    if isinstance(like, Tensor):
        return value.to(like.device, like.dtype, copy=True)
    with np.errstate(over="ignore"):
        made = value.cpu().numpy().astype(like.dtype)
    return made[()] if isinstance(like, np.generic) else made


def _zeros(array: Array) -> Array:
    if isinstance(array, Tensor):
        return torch.zeros_like(array)
    return np.zeros_like(array)[()] if isinstance(array, np.generic) else np.zeros_like(array)


def _copied(array: Array) -> Array:
    return array.detach().clone() if isinstance(array, Tensor) else array.copy()
