"""MNIST: 70,000 handwritten digits, 28 x 28 gray values.

x are the stored bytes, unchanged and in file order.

Shapes: train (60000, 1, 28, 28) and test (10000, 1, 28, 28), uint8; 10 classes.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE 86(11), 1998; the md5 checksums of the four gz files are those
of ``torchvision.datasets.MNIST``.

Deviations: none. The folder is torchvision's (``MNIST/raw``); the gz files are read as they are and
nothing is written, so a data folder may be read-only. Unpacked files serve as well.

Example:
>>> [file.path for file in mnist().files[:2]]
['MNIST/raw/train-images-idx3-ubyte.gz', 'MNIST/raw/train-labels-idx1-ubyte.gz']
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, File, Samples
from backstop.platform.intake.checks import checked
from backstop.platform.intake.files import idx, locate_file, naming_download, naming_file

VERSION = 1
KINDS = ("image",)
MEAN = (0.130660,)  # of the train part, x / 255
STD = (0.308108,)
HINT = (
    "put the four gz files of MNIST into MNIST/raw under the data folder, or run:"
    " backstop data mnist --download"
)
CHECKSUMS = {  # name: (md5 of the gz file, md5 of what it holds)
    "train-images-idx3-ubyte": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "6bbc9ace898e44ae57da46a324031adb",
    ),
    "train-labels-idx1-ubyte": (
        "d53e105ee54ea40749a09fcbcd1e9432",
        "a25bea736e30d166cdddb491f175f624",
    ),
    "t10k-images-idx3-ubyte": (
        "9fb629c4189551a2d022fa330f9573f3",
        "2646ac647ad5339dbf082846283269ea",
    ),
    "t10k-labels-idx1-ubyte": (
        "ec29112dd5afa0611ce80d1b7f02629c",
        "27ae3e4e09519cfbb04c329615203637",
    ),
}
FILES = tuple(
    File(f"MNIST/raw/{name}.gz", packed, HINT, instead=(File(f"MNIST/raw/{name}", plain, HINT),))
    for name, (packed, plain) in CHECKSUMS.items()
)


def mnist() -> Dataset:
    """MNIST as a dataset."""
    return Dataset(
        load=_load,
        files=FILES,
        download=_download,
    )


def _load(folder: Path) -> Data:
    train, test = (
        Samples(_read(folder, x, 28, 28).unsqueeze(1), _read(folder, y).long())
        for x, y in (FILES[:2], FILES[2:])
    )
    return checked(
        Data(
            train,
            test,
            classes=10,
            kind="image",
            mean=MEAN,
            std=STD,
        ),
        "mnist",
    )


def _read(
    folder: Path,
    file: File,
    *sides: int,
) -> Tensor:
    path = locate_file(folder, file)
    with naming_file(path, HINT):
        return torch.from_numpy(idx(path.read_bytes(), *sides).copy())


def _download(folder: Path) -> None:
    with naming_download("MNIST", HINT):
        from torchvision.datasets import MNIST

        MNIST(folder, download=True)
