"""Image datasets that are too large to keep beside the tests, read from tiny files in exactly the
published formats.
"""

from __future__ import annotations

import gzip
import math
import pickle
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt
import pytest
import torch

from backstop.platform import plugins
from backstop.platform.contract import Data, Dataset, Samples
from backstop.platform.datasets import cifar10, cifar100, emnist, fashion_mnist
from backstop.platform.intake import checks
from backstop.platform.intake.files import idx, md5_of, naming_file
from backstop.platform.params import BadInput

Bytes = npt.NDArray[np.uint8]
SPLITS = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}


def build(name: str, **params: Any) -> Dataset:
    found: Dataset = plugins.build("datasets", name, params)
    return found


def packed(values: Bytes) -> bytes:
    """An idx file."""
    return (
        bytes([0, 0, 8, values.ndim])
        + b"".join(side.to_bytes(4, "big") for side in values.shape)
        + values.tobytes()
    )


def pictures(count: int, start: int = 0) -> Bytes:
    """Images that differ from each other and from their transposes."""
    return (np.arange(start, start + count * 28 * 28) % 251).astype(np.uint8).reshape(count, 28, 28)


def agrees(data: Data) -> None:
    """Mean and std are those of the train part."""
    assert data.mean is not None and data.std is not None
    x = data.train.x.double() / 255
    torch.testing.assert_close(
        torch.tensor(data.mean, dtype=torch.float64), x.mean((0, 2, 3)), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        torch.tensor(data.std, dtype=torch.float64),
        x.std((0, 2, 3), correction=0),
        rtol=0,
        atol=1e-12,
    )


# idx files


@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress])
def test_an_idx_file(pack: Callable[[bytes], bytes]) -> None:
    x = pictures(3)
    assert np.array_equal(idx(pack(packed(x)), 28, 28), x)
    assert idx(pack(packed(x[0, 0]))).tolist() == list(range(28))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a uint8 IDX file"),
        (b"damaged", "not a uint8 IDX file"),
        (b"\0\0\x0d\x03" + packed(pictures(1))[4:], "not a uint8 IDX file"),  # floats
        (packed(pictures(1)[:, :27]), r"it has the shape \(1, 27, 28\), not \(N, 28, 28\), N > 0"),
        (packed(pictures(1)[0]), r"it has the shape \(28, 28\), not \(N, 28, 28\)"),
        (packed(pictures(0)), r"it has the shape \(0, 28, 28\)"),
        (packed(pictures(2))[:-1], "it has 1567 values, not the 1568 that its header declares"),
        (packed(pictures(2)) + b"x", "it has 1569 values, not the 1568"),
        (packed(pictures(2))[:10], "buffer"),
        (gzip.compress(packed(pictures(2)))[:-20], "end-of-stream"),
    ],
)
def test_what_is_no_idx_file_of_images(content: bytes, message: str, tmp_path: Path) -> None:
    with (
        pytest.raises(BadInput, match=rf"^{tmp_path} cannot be read: [^\n]*{message}[^\n]*; hint$"),
        naming_file(tmp_path, "hint"),
    ):
        idx(content, 28, 28)


def test_labels_in_place_of_images() -> None:
    with pytest.raises(ValueError, match=r"it has the shape \(1, 28, 28\), not \(N,\), N > 0"):
        idx(packed(pictures(1)))


def test_the_scale_of_each_channel() -> None:
    x = torch.tensor([0, 255, 51, 51], dtype=torch.uint8).reshape(1, 2, 1, 2)
    assert checks.scale(x) == ((0.5, 0.2), (0.5, 0.0))
    # single precision would lose the last pixels
    many = torch.full((40, 1, 512, 512), 255, dtype=torch.uint8)
    many[0, 0, 0, 0] = 0
    n = many.numel()
    (mean,), (std,) = checks.scale(many)
    assert mean == (n - 1) / n and math.isclose(std, math.sqrt(n - 1) / n, rel_tol=1e-12)


# Fashion-MNIST


def wardrobe(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: bytes) -> list[Bytes]:
    """Four gz files whose checksums are taken for the published ones."""
    parts = [
        pictures(30),
        np.arange(30, dtype=np.uint8) % 10,
        pictures(10, 7),
        np.arange(10, dtype=np.uint8),
    ]
    files = []
    for file, values in zip(fashion_mnist.FILES, parts, strict=True):
        content = changes.get(
            Path(file.path).stem.split("-idx")[0].replace("-", "_"), gzip.compress(packed(values))
        )
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).write_bytes(content)
        files.append(file._replace(md5=md5_of(content)))
    monkeypatch.setattr(fashion_mnist, "FILES", tuple(files))
    return parts


def test_fashion_mnist_from_gz_and_unpacked_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_x, train_y, test_x, test_y = wardrobe(tmp_path, monkeypatch)
    data = build("fashion_mnist").load(tmp_path)
    assert (
        np.array_equal(data.train.x[:, 0].numpy(), train_x)
        and data.train.y.tolist() == train_y.tolist()
    )
    assert (
        np.array_equal(data.test.x[:, 0].numpy(), test_x)
        and data.test.y.tolist() == test_y.tolist()
    )
    assert data.train.x.shape == (30, 1, 28, 28) and data.classes == 10
    agrees(data)
    for file in fashion_mnist.FILES:
        (path := tmp_path / file.path).with_suffix("").write_bytes(
            gzip.decompress(path.read_bytes())
        )
        path.unlink()
    again = build("fashion_mnist").load(tmp_path)
    assert torch.equal(again.train.x, data.train.x) and torch.equal(again.test.y, data.test.y)


def test_fashion_mnist_has_the_published_checksums() -> None:
    from torchvision.datasets import FashionMNIST

    assert [
        (Path(file.path).name, file.md5) for file in fashion_mnist.FILES
    ] == FashionMNIST.resources


def test_fashion_mnist_that_is_not_the_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = fashion_mnist.FILES
    wardrobe(tmp_path, monkeypatch)
    monkeypatch.setattr(fashion_mnist, "FILES", published)
    message = (
        r"train-images-idx3-ubyte.gz is corrupt: its md5 is [0-9a-f]{32}, not "
        r"8d4fb7e6c68d591d4c3dfef9ec88bf0d; put the four gz files"
    )
    with pytest.raises(BadInput, match=message):
        build("fashion_mnist").load(tmp_path)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (
            "train_images",
            pictures(30)[:, :, :27],
            r"train-images-idx3-ubyte.gz cannot be read: .* not \(N, 28, 28\).*; put the four",
        ),
        ("train_labels", np.zeros(29, np.uint8), "train has 30 inputs and 29 labels"),
        (
            "t10k_labels",
            np.full(10, 10, np.uint8),
            r"test labels reach from 10 to 10; they are in 0\.\.9",
        ),
        ("train_images", np.zeros((30, 28, 28), np.uint8), "std is positive"),
    ],
)
def test_fashion_mnist_of_a_wrong_form(
    part: str, values: Bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wardrobe(tmp_path, monkeypatch, **{part: gzip.compress(packed(values))})
    with pytest.raises(BadInput, match=rf"^[^\n]*{message}[^\n]*$"):
        build("fashion_mnist").load(tmp_path)


# EMNIST


def handwriting(split: str) -> dict[str, bytes]:
    """The four idx files of a split by name, images transposed as published, and the labels of
    letters from 1 on.
    """
    found, first = {}, int(split == "letters")
    for part, count in (("train", 2 * SPLITS[split]), ("test", SPLITS[split])):
        x, y = pictures(count, start=len(part)), np.arange(count) % SPLITS[split] + first
        found[f"emnist-{split}-{part}-images-idx3-ubyte"] = packed(x.transpose(0, 2, 1))
        found[f"emnist-{split}-{part}-labels-idx1-ubyte"] = packed(y.astype(np.uint8))
    return found


def put(folder: Path, files: dict[str, bytes], form: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files as torchvision leaves them, or packed, or in an archive whose checksum is taken for
    the published one.
    """
    raw = folder / "EMNIST/raw"
    raw.mkdir(parents=True, exist_ok=True)
    if form == "zip":
        with ZipFile(raw / "gzip.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(f"gzip/{name}.gz", gzip.compress(content))
        monkeypatch.setattr(
            emnist, "ARCHIVE", emnist.ARCHIVE._replace(md5=md5_of(raw / "gzip.zip"))
        )
    for name, content in {} if form == "zip" else files.items():
        (raw / f"{name}{form}").write_bytes(gzip.compress(content) if form else content)
    return raw


@pytest.mark.parametrize("form", ["", ".gz", "zip"])
@pytest.mark.parametrize("split", SPLITS)
def test_emnist_in_every_split_and_form(
    split: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, handwriting(split), form, monkeypatch)
    before = sorted(tmp_path.rglob("*"))
    data = build("emnist", split=split).load(tmp_path)
    assert data.classes == SPLITS[split] and sorted(tmp_path.rglob("*")) == before
    for samples, count, start in ((data.train, 2 * data.classes, 5), (data.test, data.classes, 4)):
        assert (
            np.array_equal(samples.x.numpy(), pictures(count, start)[:, None])
            and samples.x.is_contiguous()
        )
        assert samples.y.tolist() == [number % data.classes for number in range(count)]
    agrees(data)


def test_emnist_is_read_as_torchvision_reads_it_but_upright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import EMNIST

    put(tmp_path, handwriting("letters"), "", monkeypatch)
    data, theirs = (
        build("emnist", split="letters").load(tmp_path),
        EMNIST(tmp_path, split="letters", train=False),
    )
    assert torch.equal(data.test.x[:, 0], theirs.data.mT) and torch.equal(
        data.test.y + 1, theirs.targets
    )
    assert emnist.ARCHIVE.md5 == EMNIST.md5 and list(emnist.CLASSES) == list(EMNIST.splits)
    assert (
        {split: len(set(EMNIST.classes_split_dict[split]) - {"N/A"}) for split in EMNIST.splits}
        == emnist.CLASSES
        == SPLITS
    )


NO_ZERO = packed(np.arange(1, 11, dtype=np.uint8))


@pytest.mark.parametrize(
    ("split", "name", "content", "message"),
    [
        (
            "digits",
            "train-images-idx3",
            packed(pictures(20)[:, 1:]),
            r"images-idx3-ubyte cannot be read: .* not \(N, 28, 28\).*; put gzip.zip",
        ),
        (
            "digits",
            "train-images-idx3",
            packed(pictures(20))[:-3],
            "images-idx3-ubyte cannot be read: ValueError: it has 15677 values",
        ),
        (
            "digits",
            "test-labels-idx1",
            b"damaged",
            "emnist-digits-test-labels-idx1-ubyte cannot be read: ValueError: not a uint8 IDX file",
        ),
        (
            "digits",
            "test-labels-idx1",
            NO_ZERO,
            r"emnist\(split=digits\): test labels reach from 1 to 10; they are in 0\.\.9",
        ),
        (
            "letters",
            "test-labels-idx1",
            packed(np.arange(26, dtype=np.uint8)),
            r"test labels reach from -1 to 24; they are in 0\.\.25",
        ),
        (
            "letters",
            "test-labels-idx1",
            packed(np.arange(2, 28, dtype=np.uint8)),
            "test labels reach from 1 to 26",
        ),
        (
            "digits",
            "test-labels-idx1",
            packed(np.zeros(9, np.uint8)),
            "test has 10 inputs and 9 labels",
        ),
        (
            "digits",
            "test-labels-idx1",
            packed(np.arange(10, dtype=np.uint8) // 2),
            "the test labels are of 5 classes, not of all 10: .*split",
        ),
    ],
)
def test_emnist_of_a_wrong_form(
    split: str,
    name: str,
    content: bytes,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(tmp_path, handwriting(split) | {f"emnist-{split}-{name}-ubyte": content}, "", monkeypatch)
    with pytest.raises(BadInput, match=rf"^[^\n]*{message}[^\n]*$"):
        build("emnist", split=split).load(tmp_path)


def test_a_wrong_archive_of_emnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = emnist.ARCHIVE
    put(tmp_path, handwriting("mnist"), "zip", monkeypatch)
    with pytest.raises(
        BadInput,
        match=(
            r"gzip.zip cannot be read: KeyError: .*emnist-digits-train-images-idx3-ubyte.gz.*; put "
            r"gzip.zip"
        ),
    ):
        build("emnist", split="digits").load(tmp_path)
    monkeypatch.setattr(emnist, "ARCHIVE", published)
    with pytest.raises(
        BadInput,
        match=(
            r"gzip.zip is corrupt: its md5 is [0-9a-f]{32}, not 58c8d27c78d21e728a6bc7b3cc06412e; "
            r"put gzip.zip"
        ),
    ):
        build("emnist", split="mnist").load(tmp_path)


# CIFAR-100 and CIFAR-10


def batch(count: int, **changes: Any) -> dict[bytes, Any]:
    """A file of CIFAR-100 as it is read: keys of Python 2, the pixels in rows."""
    return {
        b"data": np.arange(count * 3072, dtype=np.uint32).astype(np.uint8).reshape(count, 3072)
        // 2,
        b"fine_labels": [number % 100 for number in range(count)],
        b"coarse_labels": [number % 20 for number in range(count)],
        b"filenames": [b"name"] * count,
        b"batch_label": b"training batch 1 of 1",
    } | {key.encode(): value for key, value in changes.items()}


def _string(writer: Any, content: bytes) -> None:
    writer.write(b"T" + len(content).to_bytes(4, "little") + content)


class Old(pickle._Pickler):
    """Writes bytes as Python 2 did."""

    dispatch = {**pickle._Pickler.dispatch, bytes: _string}  # noqa: RUF012 -- the base class keeps it there


def old_pickle(value: Any) -> bytes:
    """Protocol 2 with strings of Python 2 and NumPy's old module names."""
    file = BytesIO()
    Old(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def hundred(
    folder: Path, monkeypatch: pytest.MonkeyPatch, train: dict[bytes, Any], test: dict[bytes, Any]
) -> None:
    """Two pickles whose checksums are taken for the published ones."""
    files = []
    for file, value in zip(cifar100.FILES, (train, test), strict=True):
        content = old_pickle(value)
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).write_bytes(content)
        files.append(file._replace(md5=md5_of(content)))
    monkeypatch.setattr(cifar100, "FILES", tuple(files))


@pytest.mark.parametrize(("labels", "classes"), [("fine", 100), ("coarse", 20)])
def test_cifar100(
    labels: str, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = batch(200), batch(100)
    hundred(tmp_path, monkeypatch, train, test)
    data = build("cifar100", labels=labels).load(tmp_path)
    assert data.classes == classes and data.train.y.tolist() == [
        number % classes for number in range(200)
    ]
    assert np.array_equal(
        data.train.x.numpy().reshape(200, 3072), train[b"data"]
    ) and data.train.x.shape[1:] == (3, 32, 32)
    # the second plane is green
    assert np.array_equal(data.test.x[:, 1].numpy().reshape(100, 1024), test[b"data"][:, 1024:2048])
    agrees(data)


def test_cifar100_has_the_published_checksums() -> None:
    from torchvision.datasets import CIFAR100

    assert [[Path(file.path).name, file.md5] for file in cifar100.FILES] == [
        *CIFAR100.train_list,
        *CIFAR100.test_list,
    ]
    assert {Path(file.path).parent.name for file in cifar100.FILES} == {CIFAR100.base_folder}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": np.zeros((20, 3071), np.uint8)},
            "train cannot be read: ValueError: .*; put the folder cifar-100-python",
        ),
        (
            {"data": np.zeros((20, 3072), np.float32)},
            "train cannot be read: ValueError: its pixels are float32, not uint8",
        ),
        ({"data": [1, 2]}, "train cannot be read: AttributeError"),
        ({"fine_labels": [0] * 19}, "train has 20 inputs and 19 labels"),
        ({"fine_labels": [100] * 20}, r"train labels reach from 100 to 100; they are in 0\.\.99"),
        ({"fine_labels": [b"cat"] * 20}, "train cannot be read: ValueError"),
    ],
)
def test_cifar100_of_a_wrong_form(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hundred(tmp_path, monkeypatch, batch(20, **changes), batch(10))
    with pytest.raises(BadInput, match=rf"^[^\n]*{message}[^\n]*$"):
        build("cifar100").load(tmp_path)


def test_cifar100_without_its_labels_and_with_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = batch(20)
    del short[b"coarse_labels"]
    hundred(tmp_path, monkeypatch, short, batch(10))
    with pytest.raises(
        BadInput, match=r"train cannot be read: KeyError: b'coarse_labels'; put the folder"
    ):
        build("cifar100", labels="coarse").load(tmp_path)
    hundred(tmp_path, monkeypatch, batch(20, filenames=len), batch(10))
    with pytest.raises(
        BadInput, match=r"UnpicklingError: __builtin__.len is not allowed, only numpy arrays are"
    ):
        build("cifar100").load(tmp_path)


@pytest.mark.parametrize(
    ("samples", "batches"), [(10, 1), (10_000, 1), (10_001, 2), (25_000, 3), (50_000, 5)]
)
def test_some_of_cifar10_are_the_first(
    samples: int, batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of one pixel each stand for images, so that the whole takes no time."""

    def records(_: Path, file: Any) -> Bytes:
        name = Path(file.path).name
        first = 10_000 * (int(name[-1]) - 1) if name != "test_batch" else 0
        opened.append(name)
        numbers = np.arange(first, first + 10_000)
        return np.stack([numbers % 10, numbers % 251, numbers // 251], axis=1).astype(np.uint8)

    def small(batches: list[Bytes]) -> Samples:
        rows = torch.from_numpy(np.concatenate(batches))
        return Samples(rows[:, 1:].reshape(-1, 2, 1, 1), rows[:, 0].long())

    opened: list[str] = []
    monkeypatch.setattr(cifar10, "_records", records)
    monkeypatch.setattr(cifar10, "_samples", small)
    monkeypatch.setattr(cifar10, "checked", lambda data, name: data)
    dataset = build("cifar10", samples=samples)
    data = dataset.load(tmp_path)
    pixels = data.train.x.flatten(1).long()
    assert (pixels[:, 0] + 251 * pixels[:, 1]).tolist() == list(range(samples)) and len(
        data.test.y
    ) == 10_000
    assert (
        opened
        == [Path(file.path).name for file in dataset.files]
        == [f"data_batch_{n + 1}" for n in range(batches)] + ["test_batch"]
    )
    assert (data.mean, data.std) == (cifar10.MEAN, cifar10.STD)


def test_the_number_of_samples_of_cifar10_has_bounds() -> None:
    for samples in (9, 50_001):
        with pytest.raises(BadInput, match=r"samples is an integer in \[10, 50000\]"):
            build("cifar10", samples=samples)


@pytest.mark.parametrize("name", ["fashion_mnist", "emnist", "cifar100"])
def test_a_download_goes_into_the_data_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision makes the folder that is read inside it."""
    asked: list[Any] = []
    theirs = {"fashion_mnist": "FashionMNIST", "emnist": "EMNIST", "cifar100": "CIFAR100"}[name]
    monkeypatch.setattr(
        f"torchvision.datasets.{theirs}",
        lambda folder, **options: asked.append((Path(folder), options["download"])),
    )
    download = build(name).download
    assert download is not None
    download(tmp_path)
    assert asked == [(tmp_path, True)]
    assert import_module(f"backstop.platform.datasets.{name}").HINT.endswith(
        f"backstop data {name} --download"
    )
