"""EMNIST: up to 814,255 handwritten digits and letters, 28 x 28 gray values, in one of six
published splits.

x are the stored bytes in file order, each image turned upright: x[n, 0, i, j] = stored[n, j, i].

    split     classes  which
    byclass   62       0-9, A-Z, a-z, all samples
    bymerge   47       all samples; c i j k l m o p s u v w x y z share the class of their capital
    balanced  47       as bymerge, equally frequent
    letters   26       a-z, capitals and small ones together
    digits    10       0-9
    mnist     10       0-9, as many as MNIST has

Shapes: train and test (N, 1, 28, 28), uint8; of ``balanced`` N is 112,800 and 18,800.

Source: G. Cohen, S. Afshar, J. Tapson, A. van Schaik, "EMNIST: Extending MNIST to Handwritten
Letters", IJCNN 2017; the md5 checksum of the published archive is that of
``torchvision.datasets.EMNIST``.

Deviations: the files hold every image transposed, rows and columns exchanged; here they stand
upright, as MNIST's do (torchvision leaves them as stored). The labels of ``letters``, stored as
1..26, are 0..25. Mean and std are computed from the train part whenever it is loaded.

Files: torchvision's folder ``EMNIST/raw`` with the unpacked files
``emnist-<split>-{train,test}-{images-idx3,labels-idx1}-ubyte``; the same as gz; or ``gzip.zip`` as
published, out of which they are read. Nothing is written. Only the archive has a published
checksum: of single files the form is checked, and that every class of the split occurs.

Example:
>>> emnist(split="letters").files[2].path
'EMNIST/raw/emnist-letters-test-images-idx3-ubyte'
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from zipfile import ZipFile

import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, File, Samples
from backstop.platform.intake.checks import checked, scale
from backstop.platform.intake.files import idx, locate_file, naming_download, naming_file
from backstop.platform.params import BadInput

VERSION = 1
KINDS = ("image",)
FOLDER = "EMNIST/raw"
HINT = (
    "put gzip.zip of EMNIST (biometrics.nist.gov/cs_links/EMNIST/gzip.zip) into EMNIST/raw under"
    " the data folder,"
    " or run: backstop data emnist --download"
)
ARCHIVE = File(f"{FOLDER}/gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e", HINT)
CLASSES = {
    "byclass": 62,
    "bymerge": 47,
    "balanced": 47,
    "letters": 26,
    "digits": 10,
    "mnist": 10,
}


def emnist(
    *,
    split: Annotated[
        Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"],
        "which of the published splits",
    ] = "balanced",
) -> Dataset:
    """One split of EMNIST as a dataset."""
    names = [
        f"emnist-{split}-{part}-{form}-ubyte"
        for part in ("train", "test")
        for form in ("images-idx3", "labels-idx1")
    ]
    files = [_file(name) for name in names]
    first = int(split == "letters")  # the smallest stored label

    def load(folder: Path) -> Data:
        train, test = (
            Samples(_upright(_read(folder, x, 28, 28)), _read(folder, y).long() - first)
            for x, y in (files[:2], files[2:])
        )
        mean, std = scale(train.x)
        data = checked(
            Data(
                train,
                test,
                classes=CLASSES[split],
                kind="image",
                mean=mean,
                std=std,
            ),
            f"emnist(split={split})",
        )
        for part, samples in (("train", train), ("test", test)):
            _check_classes(samples.y, split, part)
        return data

    return Dataset(
        load=load,
        files=tuple(files),
        download=_download,
    )


def _file(name: str) -> File:
    """A file as it is, or packed, or in the archive of all splits."""
    packed = File(f"{FOLDER}/{name}.gz", None, HINT)
    return File(f"{FOLDER}/{name}", None, HINT, instead=(packed, ARCHIVE))


def _upright(images: Tensor) -> Tensor:
    """Images as they are stored, (N, 28, 28), with their rows as rows: (N, 1, 28, 28)."""
    return images.mT.unsqueeze(1).contiguous()


def _check_classes(
    labels: Tensor,
    split: str,
    part: str,
) -> None:
    """BadInput where a class of the split has no sample."""
    present = len(labels.unique())
    if present != CLASSES[split]:
        raise BadInput(
            f"dataset emnist(split={split}): the {part} labels are of {present} classes,"
            f" not of all {CLASSES[split]}: the files are not those of the split; {HINT}"
        )


def _read(
    folder: Path,
    file: File,
    *sides: int,
) -> Tensor:
    path = locate_file(folder, file)
    with naming_file(path, HINT):
        if path.suffix == ".zip":
            with ZipFile(path) as archive:
                content = archive.read(f"gzip/{Path(file.path).name}.gz")
        else:
            content = path.read_bytes()
        return torch.from_numpy(idx(content, *sides).copy())


def _download(folder: Path) -> None:
    with naming_download("EMNIST", HINT):
        from torchvision.datasets import EMNIST

        # the archive holds all splits; this one is the smallest to decode
        EMNIST(folder, split="mnist", download=True)
