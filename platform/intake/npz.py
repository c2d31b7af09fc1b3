"""An .npz file of numbers and text, read without running code, and its arrays as a dataset."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backstop.platform.intake.files import naming_file
from backstop.platform.params import BadInput, nearest

Arrays = Mapping[str, npt.NDArray[Any]]

OTHER_NAMES = {"x": "x_train", "y": "y_train"}
CHANNELS = (1, 3)
NPY = b"\x93NUMPY"


def read_npz(path: Path, hint: str) -> Arrays:
    """The arrays of a file by their names. Raises BadInput for one that holds Python objects: to
    read these would run code.
    """
    with naming_file(path, hint):
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        with path.open("rb") as file:
            if file.read(len(NPY)) == NPY:
                raise BadInput(
                    f"{path} is a single array; save all of them in one file:"
                    " numpy.savez('mine.npz', x=x, y=y)"
                )
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz file")
        with np.load(path, allow_pickle=False) as archive:
            return {name: _read(archive, name, path) for name in archive.files}


def _read(
    archive: Any,
    name: str,
    path: Path,
) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = archive[name]
    except ValueError as error:
        if "pickle" not in str(error).lower():
            raise
        raise BadInput(
            f"{path}: array {name!r} holds Python objects, which are not read, as that would run"
            " code; save it as numbers or as text of one type (array.astype(str))"
        ) from None
    return array


def take_array(
    arrays: Arrays,
    name: str,
    path: Path,
) -> npt.NDArray[Any]:
    """An array by its name, or as Keras calls it. Raises BadInput where it is not there."""
    for option in (name, OTHER_NAMES.get(name, name)):
        if option in arrays:
            return arrays[option]
    raise BadInput(f"{path} has no array {name!r}; {nearest(name, arrays)}")


class Numbered(NamedTuple):
    """Labels or clients as the numbers 0, 1, …, and what they are called."""

    number: Tensor  # (N,) int64
    names: tuple[str, ...]


def read_names(
    array: npt.NDArray[Any],
    where: str,
    known: tuple[str, ...] | None = None,
) -> Numbered:
    """A column of whole numbers or text, numbered in their order, or as in ``known``. Raises
    BadInput where it is anything else.
    """
    column = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if column.ndim != 1:
        hint = "; of one-hot rows take argmax(axis=1)" if column.ndim == 2 else ""
        raise BadInput(f"{where} has shape {array.shape}; it has one value a sample, (N,){hint}")
    if column.dtype.kind == "f":
        if not np.isfinite(column).all() or (column != np.round(column)).any():
            raise BadInput(f"{where} holds fractions or NaN; it names classes, by numbers or text")
        column = column.astype(np.int64)
    if column.dtype.kind not in "biuUS":
        raise BadInput(f"{where} is {column.dtype}; it holds whole numbers or text")
    distinct, number = np.unique(column, return_inverse=True)
    names = tuple(_text(value) for value in distinct)
    if known is None:
        return Numbered(torch.from_numpy(number.astype(np.int64)), names)
    strange = [name for name in names if name not in known]
    if strange:
        raise BadInput(f"{where} has {strange[0]!r}, which no training sample has")
    position = np.array([known.index(name) for name in names], np.int64)
    return Numbered(torch.from_numpy(position[number]), known)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def as_images(
    x: npt.NDArray[Any],
    channels: str | None,
    where: str,
) -> Tensor:
    """Images (N, C, H, W), uint8 or float32 in [0, 1]. Raises BadInput for values of another range.

    ``channels`` says on which axis they are: ``first``, ``last`` or None, where only one is one or
    three long.
    """
    if x.ndim == 3:
        x = x[:, None]
    elif _last(x.shape, channels, where):
        x = x.transpose(0, 3, 1, 2)
    if x.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(x))
    if x.dtype.kind not in "biuf":
        raise BadInput(f"{where} is {x.dtype}; pixels are numbers")
    if not np.isfinite(x).all():
        raise BadInput(f"{where} holds NaN or infinity")
    low, high = float(x.min()), float(x.max())
    if x.dtype.kind in "iu" and low >= 0 and 1 < high <= 255:
        return torch.from_numpy(np.ascontiguousarray(x.astype(np.uint8)))
    if low < 0 or high > 1:
        raise BadInput(
            f"{where} reaches from {low:g} to {high:g} in {x.dtype}; images are whole numbers from"
            f" 0 to 255 or fractions from 0 to 1{_remedy(x, low, high)}"
        )
    return torch.from_numpy(np.ascontiguousarray(x, np.float32))


def _remedy(
    x: npt.NDArray[Any],
    low: float,
    high: float,
) -> str:
    """What to do with pixels of another range."""
    if low >= 0 and high <= 255 and (x == np.round(x)).all():
        return "; save x.astype('uint8')"
    if low >= 0 and high <= 255:
        return "; save x / 255"
    return "; undo what centered and scaled them: the platform does that itself"


def _last(
    shape: tuple[int, ...],
    channels: str | None,
    where: str,
) -> bool:
    """Whether channels are on the last axis."""
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if channels is None and first == last:
        raise BadInput(
            f"{where} has shape {shape}; images have 1 or 3 channels, and channels=first or last"
            " says on which axis"
        )
    return last if channels is None else channels == "last"


def as_table(x: npt.NDArray[Any], where: str) -> Tensor:
    """Rows of features, float32. Raises BadInput where some are not finite."""
    if x.dtype.kind not in "biuf":
        raise BadInput(f"{where} is {x.dtype}; features are numbers")
    rows = np.ascontiguousarray(x, np.float32)
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        raise BadInput(
            f"{where} holds NaN, infinity or more than float32 does in {len(wrong)} rows, first in"
            f" row {wrong[0]} (from 0)"
        )
    return torch.from_numpy(rows)


def check_lengths(lengths: Iterable[tuple[str, int]], path: Path) -> None:
    """Raise BadInput unless arrays that go together are equally long, and not empty."""
    listed = list(lengths)
    if len({length for _, length in listed}) > 1 or not listed[0][1]:
        words = " and ".join(f"{name} {length}" for name, length in listed)
        raise BadInput(f"{path}: {words} samples; there is one of each for a sample, and some")
