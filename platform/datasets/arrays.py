"""Anyone's arrays: an .npz file with inputs x and labels y, and perhaps a test part and clients.

``numpy.savez("mine.npz", x=x, y=y, x_test=…, y_test=…, client=…)``; ``x_train`` and ``y_train``
serve as well. Labels and clients are whole numbers or text, numbered in their order: 0, 1, …

Shapes: x (N, F) numbers → float32 table; (N, H, W), (N, C, H, W) or (N, H, W, C) with one or three
channels → images, uint8 or float32 in [0, 1]; y (N,); client (N,); 2 to 1000 classes. Without
x_test the test part holds ``test`` of the distinct inputs with all their copies.

Source: no publication; the data are the user's own.

Deviations: none. Whole numbers from 0 to 255 are 8-bit images in any integer type, fractions stay
in [0, 1], and anything else is refused: centered pixels cannot be stamped with a trigger. Features
with one value in all training rows are left out. Arrays of Python objects are refused
unread. ``client`` names the natural client of each sample of x.

Files: ``path``, relative to the data folder or absolute. The id of a spec holds the path and the
other parameters, not the arrays.

Example:
>>> arrays(path="mine.npz").files[0].path
'mine.npz'
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from torch import Tensor

from backstop.platform.contract import Data, Dataset, File, Samples
from backstop.platform.intake.checks import checked
from backstop.platform.intake.labels import MOST_CLASSES
from backstop.platform.intake.npz import (
    Arrays,
    as_images,
    as_table,
    check_lengths,
    read_names,
    read_npz,
    take_array,
)
from backstop.platform.intake.own_files import locate_own
from backstop.platform.intake.parts import (
    Parts,
    as_data,
    check_all_trained,
    draw_test_part,
    reading_of,
)
from backstop.platform.params import BadInput, Range
from backstop.platform.seeds import generator

VERSION = 1
KINDS = ("image", "table")
HINT = "put an .npz file there, numpy.savez('mine.npz', x=x, y=y), or name another: arrays(path=…)"
USED = {"x", "y", "x_train", "y_train", "x_test", "y_test", "client"}


def arrays(
    *,
    path: Annotated[str, "the .npz file, relative to the data folder or absolute"] = "arrays.npz",
    channels: Annotated[
        Literal["first", "last"] | None, "axis of an image's channels; none: the one of 1 or 3"
    ] = None,
    test: Annotated[
        float,
        Range(0, 1, low_open=True, high_open=True),
        "share of the distinct inputs that are tested, where the file has no x_test",
    ] = 0.2,
    seed: Annotated[
        int, Range(0, 2**31 - 1), "names the draw of the test part; not the seed of the experiment"
    ] = 0,
) -> Dataset:
    """An .npz file as a dataset."""
    file = File(path, None, HINT)

    def load(folder: Path) -> Data:
        (located,) = locate_own(folder, file)
        held = read_npz(located, HINT)
        parts = _parts(held, channels, located)
        if parts.test is parts.train:
            parts = draw_test_part(parts, test, generator(seed, "arrays", "test"))
        check_all_trained(parts, located)
        data, left_out = as_data(parts, located, "image" if parts.train.x.ndim == 4 else "table")
        unused = sorted(set(held) - USED)
        notes = [f"array {name!r} is not used" for name in unused]
        reading = reading_of(path, data, parts, left_out)
        return checked(data._replace(reading=reading._replace(notes=tuple(notes))), "arrays")

    return Dataset(load=load, files=(file,))


def _parts(
    held: Arrays,
    channels: str | None,
    path: Path,
) -> Parts:
    """The arrays checked by themselves and with each other; without a test part ``test`` is
    ``train``.
    """
    x = _inputs(held, "x", channels, path)
    labels = read_names(take_array(held, "y", path), f"{path}: y")
    lengths = [("x has", len(x)), ("y", len(labels.number))]
    owners = None
    if "client" in held:
        owners = read_names(held["client"], f"{path}: client")
        lengths.append(("client", len(owners.number)))
    check_lengths(lengths, path)
    if not 2 <= len(labels.names) <= MOST_CLASSES:
        raise BadInput(
            f"{path}: y has {len(labels.names)} distinct values; there are 2 to {MOST_CLASSES}"
            " classes"
        )
    train = Samples(x, labels.number)
    if ("x_test" in held) != ("y_test" in held):
        raise BadInput(f"{path} has one of x_test and y_test; a test part has both")
    if "x_test" not in held:
        return Parts(train, train, labels.names, owners)
    test_x = _inputs(held, "x_test", channels, path)
    test_y = read_names(held["y_test"], f"{path}: y_test", labels.names)
    check_lengths([("x_test has", len(test_x)), ("y_test", len(test_y.number))], path)
    return Parts(train, Samples(test_x, test_y.number), labels.names, owners)


def _inputs(
    held: Arrays,
    name: str,
    channels: str | None,
    path: Path,
) -> Tensor:
    x = take_array(held, name, path)
    where = f"{path}: {name}"
    if not x.size:
        raise BadInput(f"{where} is empty, {x.shape}")
    if x.ndim == 2:
        return as_table(x, where)
    if x.ndim in (3, 4):
        return as_images(x, channels, where)
    raise BadInput(
        f"{where} has shape {x.shape}; a table is (N, F), images are (N, H, W), (N, C, H, W) or"
        " (N, H, W, C)"
    )
