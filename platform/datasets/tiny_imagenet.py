"""Tiny-ImageNet: 110,000 photographs of two hundred kinds of things, 64 x 64 RGB, in its folder.

x are the decoded JPEG files; gray ones are made RGB. Classes are the WordNet ids of ``wnids.txt``
in alphabetical order, 0..199, as torchvision's ImageFolder has them.

Shapes: train (100000, 3, 64, 64) and test (10000, 3, 64, 64), uint8.

Source: Y. Le, X. Yang, "Tiny ImageNet Visual Recognition Challenge", report of the course CS 231N,
Stanford University, 2015; of the images of O. Russakovsky et al., "ImageNet Large Scale Visual
Recognition Challenge", International Journal of Computer Vision, 2015.

Deviations: the labels of its test images are not published; the validation part is the test set,
as wherever figures on this dataset are reported. Mean and std are computed from the train part
whenever it is loaded. Bounding boxes are not read.

Checked: the form of the folder is remembered; no checksum of the archive is published.

Files: the folder ``tiny-imagenet-200`` with ``wnids.txt``, ``words.txt``,
``train/ID/images/….JPEG``, ``val/images/….JPEG`` and ``val/val_annotations.txt``. As many classes
and images are read as are there, of at least two classes.

Example:
>>> tiny_imagenet().files[0].path
'tiny-imagenet-200'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, File, Reading, Samples
from backstop.platform.intake.checks import checked, scale
from backstop.platform.intake.files import locate_file, naming_file, read_text
from backstop.platform.intake.pictures import ENDINGS, PictureForm, decode
from backstop.platform.intake.tables import repeats
from backstop.platform.params import BadInput

VERSION = 1
KINDS = ("image",)
HINT = (
    "unpack tiny-imagenet-200.zip (cs231n.stanford.edu/tiny-imagenet-200.zip) into the data folder"
)
FILE = File("tiny-imagenet-200", None, HINT)
SIDE = 64
FORM = PictureForm(None, "color")
SIZES = f"the images of Tiny-ImageNet are all of {SIDE}×{SIDE}"


def tiny_imagenet() -> Dataset:
    """Tiny-ImageNet as a dataset."""
    return Dataset(load=_load, files=(FILE,))


def _load(folder: Path) -> Data:
    root = locate_file(folder, FILE)
    with naming_file(root, HINT):
        ids = _ids(root)
        train_files = _train_files(root, ids)
        test_files = _test_files(root, ids)
    train, test = _samples(train_files), _samples(test_files)
    mean, std = scale(train.x)
    if min(std) == 0:
        raise BadInput(f"{root}: all training images have one color in all pixels")
    data = Data(
        train,
        test,
        classes=len(ids),
        kind="image",
        mean=mean,
        std=std,
    )
    return checked(data._replace(reading=_reading(root, ids, data)), "tiny_imagenet")


def _ids(root: Path) -> dict[str, int]:
    """WordNet id → label."""
    ids = sorted(read_text(root / "wnids.txt", hint=HINT).split())
    if len(ids) < 2 or len(set(ids)) < len(ids):
        raise BadInput(f"{root / 'wnids.txt'} names {len(ids)} classes, or one of them twice")
    return {name: label for label, name in enumerate(ids)}


def _train_files(root: Path, ids: Mapping[str, int]) -> list[tuple[Path, int]]:
    """The training images with their labels, class by class."""
    there = {place.name for place in (root / "train").iterdir() if place.is_dir()}
    if there != set(ids):
        odd = min(there ^ set(ids))
        raise BadInput(f"{root / 'train'} and wnids.txt differ in class {odd}; {HINT}")
    found = []
    for name, label in ids.items():
        places = sorted((root / "train" / name / "images").iterdir())
        images = [place for place in places if place.suffix.lower() in ENDINGS]
        if not images:
            raise BadInput(f"{root / 'train' / name / 'images'} holds no image; {HINT}")
        found += [(place, label) for place in images]
    return found


def _test_files(root: Path, ids: Mapping[str, int]) -> list[tuple[Path, int]]:
    """The validation images with their labels, in the order of the list."""
    listing = root / "val" / "val_annotations.txt"
    found = []
    for number, line in enumerate(read_text(listing, hint=HINT).splitlines(), start=1):
        name, _, rest = line.partition("\t")
        label = ids.get(rest.partition("\t")[0])
        place = root / "val" / "images" / name
        if label is None or not name or Path(name).name != name:
            raise BadInput(f"{listing}: line {number} is no image and a class of wnids.txt; {HINT}")
        found.append((place, label))
    if not found:
        raise BadInput(f"{listing} names no image; {HINT}")
    return found


def _samples(files: Sequence[tuple[Path, int]]) -> Samples:
    x = torch.from_numpy(decode([place for place, _ in files], FORM, HINT, sizes=SIZES))
    if x.shape[2:] != (SIDE, SIDE):
        raise BadInput(f"{files[0][0]} has {x.shape[3]}×{x.shape[2]} pixels; {SIZES}")
    return Samples(x, torch.tensor([label for _, label in files]))


def _reading(
    root: Path,
    ids: Mapping[str, int],
    data: Data,
) -> Reading:
    """What became of the folder."""
    train, test = data.train, data.test
    copies, across = repeats(train.x, test.x)
    return Reading(
        source=FILE.path,
        rows=len(train.y) + len(test.y),
        dropped={},
        classes=_counts(root, ids, torch.cat([train.y, test.y])),
        train=len(train.y),
        test=len(test.y),
        copies=copies,
        across=across,
        form=f"3×{SIDE}×{SIDE} pixels",
    )


def _counts(
    root: Path,
    ids: Mapping[str, int],
    labels: Tensor,
) -> dict[str, int]:
    """Name of a class → its images; the id itself where ``words.txt`` has no name for it."""
    lines = read_text(root / "words.txt", hint=HINT).splitlines()
    words = {name: text.split(",")[0] for name, _, text in (line.partition("\t") for line in lines)}
    counts = labels.bincount(minlength=len(ids)).tolist()
    taken = [words.get(name, name) for name in ids]
    names = [
        word if taken.count(word) == 1 else name for name, word in zip(ids, taken, strict=True)
    ]
    return dict(zip(names, counts, strict=True))
