"""CIFAR-100: 60,000 photographs of a hundred kinds of things, 32 x 32 RGB.

x are the stored bytes, unchanged and in file order. Classes are the fine labels 0..99, or the
coarse labels 0..19, each of five fine ones; both in alphabetical order of their names.

Shapes: train (50000, 3, 32, 32) and test (10000, 3, 32, 32), uint8.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report,
University of Toronto, 2009; the md5 checksums of the files are those of
``torchvision.datasets.CIFAR100``.

Deviations: none. Mean and std are computed from the train part whenever it is loaded.

Files: torchvision's folder ``cifar-100-python`` with the pickles ``train`` and ``test``, of which
only containers, text, numbers and numpy arrays are read.

Example:
>>> [file.path for file in cifar100(labels="coarse").files]
['cifar-100-python/train', 'cifar-100-python/test']
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from backstop.platform.contract import Data, Dataset, File, Samples
from backstop.platform.intake.checks import checked, scale
from backstop.platform.intake.files import locate_file, naming_download, naming_file, unpickle

VERSION = 1
KINDS = ("image",)
HINT = (
    "put the folder cifar-100-python of cifar-100-python.tar.gz into the data folder, or run:"
    " backstop data cifar100 --download"
)
FILES = (
    File("cifar-100-python/train", "16019d7e3df5f24257cddd939b257f8d", HINT),
    File("cifar-100-python/test", "f0ef6b0ae62326f3e7ffdfab6717acfc", HINT),
)
CLASSES = {"fine": 100, "coarse": 20}


def cifar100(
    *,
    labels: Annotated[
        Literal["fine", "coarse"], "fine: 100 kinds of things; coarse: 20 groups of five kinds"
    ] = "fine",
) -> Dataset:
    """CIFAR-100 as a dataset."""

    def load(folder: Path) -> Data:
        train, test = (_read(folder, file, labels) for file in FILES)
        mean, std = scale(train.x)
        return checked(
            Data(
                train,
                test,
                classes=CLASSES[labels],
                kind="image",
                mean=mean,
                std=std,
            ),
            "cifar100",
        )

    return Dataset(
        load=load,
        files=FILES,
        download=_download,
    )


def _read(
    folder: Path,
    file: File,
    labels: str,
) -> Samples:
    path = locate_file(folder, file)
    with naming_file(path, HINT):
        batch = unpickle(path.read_bytes())
        pixels = batch[b"data"].reshape(-1, 3, 32, 32)
        if pixels.dtype != np.uint8:
            raise ValueError(f"its pixels are {pixels.dtype}, not uint8")
        return Samples(
            torch.from_numpy(pixels),
            torch.from_numpy(np.asarray(batch[f"{labels}_labels".encode()], np.int64)),
        )


def _download(folder: Path) -> None:
    with naming_download("CIFAR-100", HINT):
        from torchvision.datasets import CIFAR100

        CIFAR100(str(folder), download=True)
