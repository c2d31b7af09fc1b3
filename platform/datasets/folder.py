"""Anyone's images: a folder with a folder for each class, as torchvision's ImageFolder has them.

``path/CLASS/….png``, or ``path/train/CLASS/…`` and ``path/test/CLASS/…`` where the split is given
(``val``, ``valid`` and ``validation`` count as test where there is no ``test``). Labels are the
names of the classes in alphabetical order: 0, 1, …

Shapes: (N, 3, size, size) or (N, 1, size, size) uint8; 2 to 1000 classes. Where no split is given
the test part holds ``test`` of the distinct images with all their copies.

Source: no publication; the data are the user's own.

Deviations: none from torchvision's order of classes and files. Images are turned as their EXIF data
say, made RGB or gray, and scaled to a square of ``size`` by bilinear interpolation, whatever their
shape; ``size=none`` takes them as they are, all of one size. An image that cannot be decoded, one
of more than 8 bits a pixel, and a class without images are refused; files that do not end as images
do are counted and left out, hidden ones too.

Clients: with ``clients=true`` the folders above the classes are the natural clients,
``path/CLIENT/CLASS/…`` or ``path/train/CLIENT/CLASS/…``; a client need not have all classes.

Files: ``path``, relative to the data folder or absolute. The id of a spec holds the path and the
other parameters, not the images.

Example:
>>> folder(path="leaves", size=48).files[0].path
'leaves'
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, File, Reading, Samples
from backstop.platform.intake.checks import checked, scale
from backstop.platform.intake.files import naming_file
from backstop.platform.intake.labels import MOST_CLASSES
from backstop.platform.intake.own_files import locate_own
from backstop.platform.intake.pictures import PictureForm, class_folders, decode, subfolders
from backstop.platform.intake.tables import held_out, repeats
from backstop.platform.params import BadInput, Range
from backstop.platform.seeds import generator

VERSION = 1
KINDS = ("image",)
HINT = "put a folder there with a folder of images for each class, or name another: folder(path=…)"
REMEDY = "replace it or take it out"  # an image that cannot be read
TEST_FOLDERS = ("test", "val", "valid", "validation")


class _Found(NamedTuple):
    """The images of a part: file, class and client, by name."""

    files: list[Path]
    classes: list[str]
    clients: list[str]
    others: int  # files that are no images by their names


class _Split(NamedTuple):
    """The pixels and labels of all images, and which are for testing."""

    x: Tensor
    y: Tensor
    tested: Tensor


def folder(
    *,
    path: Annotated[
        str, "the folder of class folders, relative to the data folder or absolute"
    ] = "images",
    size: Annotated[
        int | None,
        Range(4, 1024),
        "pixels of each side that images are scaled to; none: not at all",
    ] = 32,
    pixels: Annotated[Literal["color", "gray"], "what images are made into"] = "color",
    clients: Annotated[
        bool, "the folders above the class folders are natural clients: path/CLIENT/CLASS/…"
    ] = False,
    test: Annotated[
        float,
        Range(0, 1, low_open=True, high_open=True),
        "share of the distinct images that are tested, where there is no test folder",
    ] = 0.2,
    seed: Annotated[
        int, Range(0, 2**31 - 1), "names the draw of the test part; not the seed of the experiment"
    ] = 0,
) -> Dataset:
    """A folder of images as a dataset."""
    file = File(path, None, HINT)

    def load(data_folder: Path) -> Data:
        (root,) = locate_own(data_folder, file)
        with naming_file(root, HINT):
            parts = _parts(root)
            found = [_found(part, clients=clients) for part in parts]
        names = sorted({name for part in found for name in part.classes})
        _check_classes(names, found[0], root)
        split = _split(found, names, PictureForm(size, pixels), test, seed)
        _check_trained(split, names, root)
        train, tested = ~split.tested, split.tested
        x = split.x[train]
        mean, std = scale(x)
        if min(std) == 0:
            raise BadInput(f"{root}: all training images have one color in all pixels")
        owners, owner_names = _owners(found, train) if clients else (None, ())
        data = Data(
            Samples(x, split.y[train]),
            Samples(split.x[tested], split.y[tested]),
            classes=len(names),
            kind="image",
            mean=mean,
            std=std,
            client=owners,
        )
        reading = _reading(path, data, found, names, owner_names)
        return checked(data._replace(reading=reading), "folder")

    return Dataset(load=load, files=(file,))


def _parts(root: Path) -> list[Path]:
    """The folders that hold classes: the root, or that for training and that for testing."""
    if not root.is_dir():
        raise NotADirectoryError("it is no folder")
    inner = {place.name: place for place in subfolders(root)}
    test = [inner[name] for name in TEST_FOLDERS if name in inner]
    if "train" in inner and test:
        return [inner["train"], test[0]]
    if "train" in inner and len(inner) == 1:
        return [inner["train"]]
    return [root]


def _found(part: Path, *, clients: bool) -> _Found:
    """The images below a folder of classes, or of clients."""
    found = _Found([], [], [], 0)
    owners = subfolders(part) if clients else [part]
    if not owners:
        raise BadInput(f"{part} has no folders in it, one for each client; {HINT}")
    for owner in owners:
        classes, others = class_folders(owner, HINT)
        found = found._replace(others=found.others + others)
        for name, images in classes:
            found.files.extend(images)
            found.classes.extend([name] * len(images))
            found.clients.extend([owner.name] * len(images))
    return found


def _check_classes(
    names: Sequence[str],
    train: _Found,
    root: Path,
) -> None:
    if not 2 <= len(names) <= MOST_CLASSES:
        listed = f", {names[0]}" if len(names) == 1 else ""
        raise BadInput(
            f"{root} has {len(names)} class{'es' * (len(names) != 1)}{listed};"
            f" there are 2 to {MOST_CLASSES}, a folder each"
        )
    lacking = sorted(set(names) - set(train.classes))
    if lacking:
        raise BadInput(f"{root}: class {lacking[0]!r} has test images and none for training")


def _split(
    found: Sequence[_Found],
    names: Sequence[str],
    form: PictureForm,
    share: float,
    seed: int,
) -> _Split:
    """All images decoded, those of a test folder last, with the test part as given or as drawn."""
    files = [file for part in found for file in part.files]
    label = {name: number for number, name in enumerate(names)}
    y = torch.tensor([label[name] for part in found for name in part.classes])
    x = torch.from_numpy(decode(files, form, REMEDY))
    if len(found) > 1:
        tested = torch.arange(len(files)) >= len(found[0].files)
    else:
        tested = held_out(_codes(x), share, generator(seed, "folder", "test"))
    return _Split(x, y, tested)


def _codes(x: Tensor) -> Tensor:
    """(N, 1) int64: equal images have equal numbers."""
    rows = x.flatten(1).numpy()
    _, codes = np.unique(rows, axis=0, return_inverse=True)
    return torch.from_numpy(codes.reshape(-1, 1))


def _check_trained(
    split: _Split,
    names: Sequence[str],
    root: Path,
) -> None:
    """Each class has images on the training side."""
    counts = split.y[~split.tested].bincount(minlength=len(names)).tolist()
    for name, count in zip(names, counts, strict=True):
        if not count:
            raise BadInput(
                f"{root}: class {name!r} has no training images, all are test images; choose"
                " another seed or a smaller test"
            )


def _owners(found: Sequence[_Found], train: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The client of each training image, and the names of the clients."""
    owner = [name for part in found for name in part.clients]
    names = sorted(set(owner))
    number = {name: index for index, name in enumerate(names)}
    return torch.tensor([number[name] for name in owner])[train], tuple(names)


def _reading(
    path: str,
    data: Data,
    found: Sequence[_Found],
    names: Sequence[str],
    clients: tuple[str, ...],
) -> Reading:
    """What became of the folder."""
    labels = torch.cat([data.train.y, data.test.y]).bincount(minlength=len(names)).tolist()
    copies, across = repeats(data.train.x, data.test.x)
    others = sum(part.others for part in found)
    images = sum(len(part.files) for part in found)
    tested = set(data.test.y.tolist())
    notes = [
        f"class {name!r} has no test images" for i, name in enumerate(names) if i not in tested
    ]
    return Reading(
        source=path,
        rows=images + others,
        dropped={"no image by its name": others} if others else {},
        classes=dict(zip(names, labels, strict=True)),
        train=len(data.train.y),
        test=len(data.test.y),
        copies=copies,
        across=across,
        form=f"{'×'.join(map(str, data.train.x.shape[1:]))} pixels",
        notes=tuple(notes),
        clients=clients,
    )
