"""CIFAR-10: 60,000 photographs of ten kinds of things, 32 x 32 RGB, with the Southwest airplanes as
edge cases.

x are the stored bytes, unchanged and in file order. Classes 0..9: airplane, automobile, bird, cat,
deer, dog, frog, horse, ship, truck.

Shapes: train (samples, 3, 32, 32), unless said otherwise (50000, 3, 32, 32), and test (10000, 3,
32, 32), uint8; edge cases (784, 3, 32, 32) and (192, 3, 32, 32), uint8.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report,
University of Toronto, 2009; the md5 checksums of the batch files are those of
``torchvision.datasets.CIFAR10``. Edge cases: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S.
Agarwal, J. Sohn, K. Lee, D. Papailiopoulos, "Attack of the Tails: Yes, You Really Can Backdoor
Federated Learning", NeurIPS 2020, section 4: photographs of Southwest Airlines airplanes, labeled
as trucks.

Deviations: 4 of the 196 published Southwest test images equal a train image pixel by pixel. They
are left out of the test set, since an attack that remembers its training images would be credited
for them. ``samples`` keeps the first training images in file order, which is random already, for
small machines; the test part stays whole, and inputs are scaled by mean and std of all 50,000.

Files: torchvision's folder ``cifar-10-batches-py``; or, for any batch, the lossless compact form
``cifar10/<batch>.npz`` with ``labels`` and ``residuals_xz`` (the planes G, R - G, B - G modulo 256,
differenced along rows and columns, packed by xz). Unpacking takes some 15 s, so the result is kept
in ``~/.cache/backstop/decoded/cifar10`` where that can be written. All forms are compared with
checksums whenever they are read. Southwest: ``edge_case/southwest.npz`` (``train`` and ``test``,
uint8 (N, 32, 32, 3) RGB) or the published pickles, of which only numpy arrays are read.

Example:
>>> cifar10().files[0].path, cifar10().edge_target
('cifar-10-batches-py/data_batch_1', 9)
>>> [file.path for file in cifar10(samples=2000).files]
['cifar-10-batches-py/data_batch_1', 'cifar-10-batches-py/test_batch']
"""

from __future__ import annotations

import lzma
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, File, Samples
from backstop.platform.disk import replacing
from backstop.platform.intake.checks import check_inputs, checked
from backstop.platform.intake.files import (
    locate_file,
    md5_of,
    naming_download,
    naming_file,
    unpickle,
)
from backstop.platform.params import BadInput, Range

VERSION = 1
KINDS = ("image",)
MEAN = (0.491400, 0.482158, 0.446531)  # of the whole train part, x / 255
STD = (0.247032, 0.243485, 0.261588)
TRUCK = 9
BATCH = 10000  # images in a file
HINT = (
    "put the folder cifar-10-batches-py of cifar-10-python.tar.gz into the data folder, or run:"
    " backstop data cifar10 --download"
)
EDGE_HINT = (
    "put southwest_images_new_train.pkl and southwest_images_new_test.pkl of Wang et al. 2020"
    " (github.com/ksreenivasan/OOD_Federated_Learning),"
    " or southwest.npz with uint8 (N, 32, 32, 3) arrays train and test,"
    " into edge_case under the data folder"
)
# name: (md5 of the file, md5 of its records: label, then 3,072 pixels, as in the published binary
# version)
CHECKSUMS = {
    "data_batch_1": ("c99cafc152244af753f735de768cd75f", "5dd7e06a14cb22eb9f671a540d1b7c25"),
    "data_batch_2": ("d4bba439e000b95fd0a9bffe97cbabec", "5ea93a67294ea407fff1d09f752e9692"),
    "data_batch_3": ("54ebc095f3ab1f0389bbae665268c751", "942cd6a4bcdd0dd3c604fbe906cb4421"),
    "data_batch_4": ("634d18415352ddfa80567beed471001a", "ae636b3ba5c66a11e91e8cb52e771fcb"),
    "data_batch_5": ("482c414d41f54cd18b22e5b47cb7c3cb", "53f37980c15c3d472c316c40844f3f0d"),
    "test_batch": ("40351d587109b95175f43aff81a1287e", "803d5f7f4d78ea53de84dbe85f74fb6d"),
}
FILES = tuple(
    File(
        f"cifar-10-batches-py/{name}", md5, HINT, instead=(File(f"cifar10/{name}.npz", None, HINT),)
    )
    for name, (md5, _) in CHECKSUMS.items()
)
EDGE_FILES = tuple(
    File(
        "edge_case/southwest.npz",
        None,
        EDGE_HINT,
        instead=tuple(
            File(f"{place}southwest_images_new_{part}.pkl", None, EDGE_HINT)
            for place in ("edge_case/", "")
        ),
    )
    for part in ("train", "test")
)
CACHE = Path("~/.cache/backstop/decoded/cifar10")
Bytes = npt.NDArray[np.uint8]


def cifar10(
    *,
    samples: Annotated[int, Range(10, 50000), "training images: the first in file order"] = 50000,
) -> Dataset:
    """CIFAR-10 as a dataset. Only the batches that hold these samples are read."""
    *full, last = FILES[: -(-samples // BATCH)]

    def load(folder: Path) -> Data:
        train = [_records(folder, file) for file in full]
        train.append(_records(folder, last)[: samples - BATCH * len(full)])
        test = [_records(folder, FILES[-1])]
        data = Data(_samples(train), _samples(test), 10, "image", mean=MEAN, std=STD)
        return checked(data, "cifar10")

    return Dataset(
        load=load,
        files=(*full, last, FILES[-1]),
        edge_cases=_edge_cases,
        edge_files=EDGE_FILES,
        edge_target=TRUCK,
        download=_download,
    )


def _samples(records: list[Bytes]) -> Samples:
    batches = [torch.from_numpy(batch) for batch in records]
    # a copy, so that the pixels lie side by side
    x = torch.cat([batch[:, 1:] for batch in batches])
    y = torch.cat([batch[:, 0] for batch in batches])
    return Samples(x.reshape(-1, 3, 32, 32), y.long())


def _records(folder: Path, file: File) -> Bytes:
    """One batch: (10000, 3073) uint8, the label and then the pixels (3, 32, 32)."""
    path = locate_file(folder, file)
    if path.suffix == ".npz":
        return _cached(path)
    with naming_file(path, HINT):
        batch = unpickle(path.read_bytes())
        return _rows(np.asarray(batch[b"labels"], np.uint8), batch[b"data"])


def _rows(labels: Bytes, pixels: Bytes) -> Bytes:
    return np.concatenate([labels.reshape(-1, 1), pixels.reshape(len(labels), 3072)], axis=1)


def _cached(path: Path) -> Bytes:
    """The records of a compact batch: from the cache where it is whole, else unpacked and put
    there.
    """
    checksum = CHECKSUMS[path.stem][1]
    kept = CACHE / f"{path.stem}.npy"
    records = _kept(kept)
    if records is not None and md5_of(records.tobytes()) == checksum:
        return records
    records = _unpacked(path)
    md5 = md5_of(records.tobytes())
    if md5 != checksum:
        raise BadInput(
            f"{path} is corrupt: the md5 of its records is {md5}, not {checksum}; {HINT}"
        )
    with suppress(OSError, RuntimeError):  # a cache that cannot be written only costs time
        _keep(kept.expanduser(), records)
    return records


def _kept(path: Path) -> Bytes | None:
    """The records in the cache; None where it is not there yet, damaged, or there is no home."""
    try:
        records: Bytes = np.load(path.expanduser(), allow_pickle=False).reshape(-1, 3073)
    except (OSError, ValueError, EOFError, RuntimeError):
        return None
    return records


def _unpacked(path: Path) -> Bytes:
    with naming_file(path, HINT), np.load(path, allow_pickle=False) as packed:
        planes: Bytes = np.frombuffer(
            lzma.decompress(packed["residuals_xz"].tobytes()), np.uint8
        ).reshape(3, -1, 32, 32)
        labels: Bytes = packed["labels"]
        for axis in (2, 3):
            # undoes the differences, modulo 256
            planes = np.cumsum(planes, axis=axis, dtype=np.uint8)
        green, red, blue = planes
        return _rows(labels, np.stack([red + green, green, blue + green], axis=1))


def _keep(path: Path, records: Bytes) -> None:
    """Put the records into the cache, whole or not at all."""
    with replacing(path) as fresh, fresh.open("wb") as file:
        np.save(file, records)


def _edge_cases(folder: Path) -> tuple[Tensor, Tensor]:
    """Southwest airplanes for training and for testing, uint8 (N, 3, 32, 32), without common
    images.
    """
    train, test = (
        _images(locate_file(folder, file), part)
        for file, part in zip(EDGE_FILES, ("train", "test"), strict=True)
    )
    known = {image.numpy().tobytes() for image in train}
    return train, test[[image.numpy().tobytes() not in known for image in test]]


def _images(path: Path, part: str) -> Tensor:
    with naming_file(path, EDGE_HINT):
        images = _stored(path, part)
    form = _other_form(images)
    if form:
        raise BadInput(f"{path}: {part} is {form}; it is a uint8 array (N, 32, 32, 3); {EDGE_HINT}")
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    check_inputs(x, "image", f"{path}: {part}")
    return x


def _stored(path: Path, part: str) -> Any:
    if path.suffix != ".npz":
        return unpickle(path.read_bytes())
    with np.load(path, allow_pickle=False) as packed:
        return packed[part]


def _other_form(images: Any) -> str:
    """What there is instead of RGB images; nothing where there are some."""
    if not isinstance(images, np.ndarray):
        return type(images).__name__
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or not len(images):
        return f"{images.dtype} {images.shape}"
    return ""


def _download(folder: Path) -> None:
    with naming_download("CIFAR-10", HINT):
        from torchvision.datasets import CIFAR10

        CIFAR10(str(folder), download=True)
