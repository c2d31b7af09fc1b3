"""Fashion-MNIST: 70,000 pictures of clothes, shoes and bags from a shop, 28 x 28 gray values.

x are the stored bytes, unchanged and in file order. Classes 0..9: T-shirt or top, trouser,
pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot.

Shapes: train (60000, 1, 28, 28) and test (10000, 1, 28, 28), uint8; 10 classes.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
Machine Learning Algorithms", arXiv:1708.07747, 2017; the md5 checksums of the four gz files are
those of ``torchvision.datasets.FashionMNIST``.

Deviations: none. Mean and std are computed from the train part whenever it is loaded.

Files: torchvision's folder ``FashionMNIST/raw``; the gz files are read as they are and nothing is
written, so a data folder may be read-only. Unpacked files serve as well; they have no published
checksums, so only their form is checked.

Example:
>>> [file.path for file in fashion_mnist().files[:2]]
['FashionMNIST/raw/train-images-idx3-ubyte.gz', 'FashionMNIST/raw/train-labels-idx1-ubyte.gz']
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, File, Samples
from backstop.platform.intake.checks import checked, scale
from backstop.platform.intake.files import idx, locate_file, naming_download, naming_file

VERSION = 1
KINDS = ("image",)
HINT = (
    "put the four gz files of Fashion-MNIST (github.com/zalandoresearch/fashion-mnist) into"
    " FashionMNIST/raw under the data folder,"
    " or run: backstop data fashion_mnist --download"
)
CHECKSUMS = {  # of the gz files
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
FILES = tuple(
    File(
        f"FashionMNIST/raw/{name}.gz",
        md5,
        HINT,
        instead=(File(f"FashionMNIST/raw/{name}", None, HINT),),
    )
    for name, md5 in CHECKSUMS.items()
)


def fashion_mnist() -> Dataset:
    """Fashion-MNIST as a dataset."""
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
    mean, std = scale(train.x)
    return checked(
        Data(
            train,
            test,
            classes=10,
            kind="image",
            mean=mean,
            std=std,
        ),
        "fashion_mnist",
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
    with naming_download("Fashion-MNIST", HINT):
        from torchvision.datasets import FashionMNIST

        FashionMNIST(folder, download=True)
