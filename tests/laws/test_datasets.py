"""What holds for every dataset. A new file in platform/datasets/ is picked up by itself; files that
are absent are skipped.
"""

from __future__ import annotations

import doctest
import gzip
import importlib
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backstop.platform import plugins
from backstop.platform.contract import Data, Dataset, File, Samples
from backstop.platform.intake import bundled, checks
from backstop.platform.intake.files import file_status, locate_file, md5_of
from backstop.platform.params import BadInput

NAMES = plugins.names("datasets")
FOLDER = Path(os.environ.get("BACKSTOP_DATA", "/nonexistent"))


def build(name: str) -> Dataset:
    found: Dataset = plugins.build("datasets", name, {})
    return found


def need(*files: File) -> None:
    for file in files:
        if file_status(FOLDER, file) != "present":
            pytest.skip(f"{file.path} is not in the data folder; set BACKSTOP_DATA")


@cache
def loaded(name: str) -> Data:
    return build(name).load(FOLDER)


def load(name: str) -> Data:
    need(*build(name).files)
    return loaded(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_data_sheet_is_there_and_its_example_runs(name: str) -> None:
    plugin = plugins.find("datasets", name)
    assert plugin.factory.__name__ == name
    assert plugins.kinds("datasets", name)
    for part in ("Shapes:", "Source:", "Deviations:", "Example:"):
        assert part in plugin.sheet
    result = doctest.testmod(importlib.import_module(plugin.factory.__module__))
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_data_is_valid(name: str) -> None:
    data = load(name)
    assert checks.checked(data, name) is data
    assert data.kind in plugins.kinds("datasets", name)
    assert data.root is None
    for samples in (data.train, data.test):
        assert samples.x.is_contiguous()
        assert int((samples.y.bincount() > 0).sum()) == data.classes


@pytest.mark.parametrize("name", NAMES)
def test_mean_and_std_are_those_of_the_training_part(name: str) -> None:
    data = load(name)
    if data.mean is None or data.std is None:
        assert data.kind == "text"
        return
    x = data.train.x / 255 if data.train.x.dtype == torch.uint8 else data.train.x
    axes = [0, *range(2, x.ndim)]
    torch.testing.assert_close(torch.tensor(data.mean), x.mean(axes), rtol=0, atol=2e-5)
    torch.testing.assert_close(torch.tensor(data.std), x.std(axes), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_loading_again_gives_the_same_bytes(name: str) -> None:
    one, other = load(name), build(name).load(FOLDER)
    assert all(
        torch.equal(a, b)
        for a, b in zip((*one.train, *one.test), (*other.train, *other.test), strict=True)
    )
    assert one[2:6] == other[2:6]


@pytest.mark.parametrize("name", NAMES)
def test_data_survives_pickling(name: str) -> None:
    data = load(name)
    small = data._replace(
        train=Samples(*(part[:9].clone() for part in data.train)),
        test=Samples(*(part[:9].clone() for part in data.test)),
    )
    copy: Data = pickle.loads(pickle.dumps(small))
    assert (
        torch.equal(copy.train.x, small.train.x)
        and torch.equal(copy.test.y, small.test.y)
        and copy[2:6] == small[2:6]
    )


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_are_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    dataset = build(name)
    if not dataset.files:
        assert dataset.load(tmp_path).classes >= 2
        return
    with pytest.raises(BadInput) as caught:
        dataset.load(tmp_path)
    file = dataset.files[0]
    assert str(caught.value) == f"{tmp_path / file.path} is missing; {file.hint}"
    assert not list(tmp_path.iterdir())  # nothing is fetched unasked


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_named(name: str, tmp_path: Path) -> None:
    dataset = build(name)
    for file in dataset.files:
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.path).write_bytes(b"damaged")
    if dataset.files:
        with pytest.raises(BadInput, match=r"^[^\n]+$") as caught:
            dataset.load(tmp_path)
        assert dataset.files[0].path in str(caught.value) and dataset.files[0].hint in str(
            caught.value
        )


@pytest.mark.parametrize("name", NAMES)
def test_edge_cases_look_like_the_training_data(name: str, tmp_path: Path) -> None:
    dataset = build(name)
    if dataset.edge_cases is None:
        assert dataset.edge_target is None and not dataset.edge_files
        return
    with pytest.raises(BadInput, match="is missing"):
        dataset.edge_cases(tmp_path)
    data = load(name)
    need(*dataset.edge_files)
    train, test = dataset.edge_cases(FOLDER)
    assert dataset.edge_target in range(data.classes)
    for x in (train, test):
        assert (
            x.dtype == data.train.x.dtype and x.shape[1:] == data.train.x.shape[1:] and len(x) > 0
        )
    assert not {one.numpy().tobytes() for one in train} & {one.numpy().tobytes() for one in test}


@pytest.mark.parametrize("name", [name for name in NAMES if build(name).download])
def test_a_download_that_fails_is_bad_input(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.error import URLError

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no\nnetwork")

    download = build(name).download
    assert download is not None
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(
        BadInput, match=r"^[^\n]*could not be downloaded[^\n]*no network[^\n]*data folder[^\n]*$"
    ):
        download(tmp_path)


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data, (values, labels) = load("digits"), load_digits(return_X_y=True)
    stored = {
        (tuple(np.rint(image * 255 / 16).astype(int)), label)
        for image, label in zip(values, labels, strict=True)
    }
    found = [
        (tuple(image.flatten().tolist()), int(label))
        for samples in (data.train, data.test)
        for image, label in zip(samples.x, samples.y, strict=True)
    ]
    assert len(found) == len(set(found)) == 1797 and set(found) == stored
    assert {int(count) for count in data.test.y.bincount()} == {35, 36, 37}


def test_patches_are_cut_from_the_photographs_of_scikit_learn() -> None:
    from sklearn.datasets import load_sample_image

    data = load("patches")
    for label, name in enumerate(("china.jpg", "flower.jpg")):
        corner = torch.from_numpy(load_sample_image(name)[:32, :32].copy()).permute(2, 0, 1)
        assert torch.equal(data.test.x[data.test.y == label][0], corner)


@pytest.mark.parametrize("name", ["digits", "patches"])
def test_bundled_data_are_read_without_importing_scikit_learn(name: str) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from backstop.platform import plugins\n"
        f"plugins.build('datasets', {name!r}, {{}}).load(Path())\n"
        "print([heavy for heavy in ('sklearn', 'scipy', 'pandas') if heavy in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("name", ["digits", "patches"])
def test_bundled_data_without_scikit_learn_say_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "find_spec", lambda _: None)
    with pytest.raises(BadInput, match=rf"^dataset {name} comes with .*pip install scikit-learn$"):
        build(name).load(Path())


@pytest.mark.parametrize(
    ("name", "file"), [("digits", "data/digits.csv.gz"), ("patches", "images/china.jpg")]
)
def test_bundled_data_that_are_missing_or_damaged_are_named(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(bundled, "find_spec", lambda _: package)
    path = tmp_path / "datasets" / file
    with pytest.raises(BadInput, match=f"^dataset {name}: there is no {path}; run: pip install"):
        build(name).load(Path())
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no data")
    with pytest.raises(BadInput, match=rf"^{path} cannot be read: [^\n]*; run: pip install"):
        build(name).load(Path())


def test_mnist_reads_gz_and_plain_files_alike(tmp_path: Path) -> None:
    one = load("mnist")
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for path in (FOLDER / "MNIST/raw").glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    other = build("mnist").load(tmp_path)
    assert torch.equal(one.train.x, other.train.x) and torch.equal(one.test.y, other.test.y)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-100], lambda content: content[:50] + b"x" + content[51:]]
)
def test_a_damaged_mnist_file(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    need(*build("mnist").files)
    shutil.copytree(FOLDER / "MNIST", tmp_path / "MNIST", copy_function=shutil.copyfile)
    path = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz"
    path.chmod(0o644)
    path.write_bytes(damage(path.read_bytes()))
    assert file_status(tmp_path, build("mnist").files[3]) == "corrupt"
    with pytest.raises(
        BadInput,
        match=(
            r"t10k-labels-idx1-ubyte.gz is corrupt: its md5 is [0-9a-f]{32}, not "
            r"ec29112dd5afa0611ce80d1b7f02629c"
        ),
    ):
        build("mnist").load(tmp_path)


def test_cifar10_is_the_same_in_every_form() -> None:
    """The checksums are those of the md5-checked original batches, decoded."""
    from backstop.platform.datasets import cifar10

    need(*cifar10.FILES)
    for file, (_, wanted) in zip(cifar10.FILES, cifar10.CHECKSUMS.values(), strict=True):
        records = cifar10._records(FOLDER, file)
        assert records.shape == (10000, 3073) and md5_of(records.tobytes()) == wanted


def test_a_batch_as_python_2_pickled_it(tmp_path: Path) -> None:
    """As in the published files: text as bytes, NumPy's old module names, integers for the flags of
    the dtype.
    """
    from backstop.platform.datasets import cifar10

    pixels = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    content = (
        b"\x80\x02}(U\x06labels](K\x03K\x09eU\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01M\x02\x00M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + (2 * 3072).to_bytes(4, "little")
        + pixels.tobytes()
        + b"tbu."
    )
    (tmp_path / "batch").write_bytes(content)
    records = cifar10._records(tmp_path, File("batch", md5_of(content), "hint"))
    assert records[:, 0].tolist() == [3, 9] and np.array_equal(records[:, 1:], pixels)
    (tmp_path / "batch").write_bytes(content[:-9])
    with pytest.raises(BadInput, match=r"cannot be read: .*; put the folder cifar-10-batches-py"):
        cifar10._records(tmp_path, File("batch", None, "hint"))


def test_cifar10_keeps_what_it_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from backstop.platform.datasets import cifar10

    path = FOLDER / "cifar10/test_batch.npz"
    if not path.exists():
        pytest.skip(f"{path} is not in the data folder; set BACKSTOP_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    kept = tmp_path / ".cache/backstop/decoded/cifar10/test_batch.npy"
    records = cifar10._cached(path)
    assert records.shape == (10000, 3073) and np.array_equal(np.load(kept), records)
    assert [path.name for path in kept.parent.iterdir()] == ["test_batch.npy"]

    def refuse(_: Path) -> None:
        raise AssertionError("unpacked again")

    monkeypatch.setattr(cifar10, "_unpacked", refuse)
    assert np.array_equal(cifar10._cached(path), records)
    # a damaged cache is unpacked again and replaced
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(cifar10, "_unpacked", lambda path: records)
    assert np.array_equal(cifar10._cached(path), records) and np.array_equal(np.load(kept), records)
    shutil.rmtree(tmp_path / ".cache")
    (tmp_path / ".cache").write_text(
        "a file where the folder should be: the cache cannot be written"
    )
    assert np.array_equal(cifar10._cached(path), records)


def test_a_wrong_compact_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lzma

    from backstop.platform.datasets import cifar10

    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "data_batch_1.npz"
    black = np.frombuffer(lzma.compress(bytes(2 * 3072)), np.uint8)
    np.savez(path, residuals_xz=black, labels=np.zeros(2, np.uint8))
    with pytest.raises(
        BadInput,
        match=r"data_batch_1.npz is corrupt: the md5 of its records is [0-9a-f]{32}, not 5dd7e06a",
    ):
        cifar10._cached(path)
    np.savez(path, residuals_xz=black[:-10], labels=np.zeros(2, np.uint8))
    with pytest.raises(
        BadInput, match=r"data_batch_1.npz cannot be read: .*; put the folder cifar-10-batches-py"
    ):
        cifar10._cached(path)
    np.savez(path, residuals_xz=black)
    with pytest.raises(BadInput, match=r"data_batch_1.npz cannot be read: KeyError"):
        cifar10._cached(path)
    assert not (tmp_path / ".cache").exists()


def southwest(count: int, start: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Images that differ from each other and whose channels differ."""
    ramp = np.arange(start, start + count).reshape(-1, 1, 1, 1) + np.array([0, 50, 100])
    return np.broadcast_to(ramp, (count, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize("form", ["npz", "pickle 2", "pickle 4", "pickle beside"])
def test_southwest_from_any_form(form: str, tmp_path: Path) -> None:
    train, test = southwest(7), southwest(4, start=5)  # two of four are in train
    folder = tmp_path if form == "pickle beside" else tmp_path / "edge_case"
    folder.mkdir(exist_ok=True)
    if form == "npz":
        np.savez(folder / "southwest.npz", train=train, test=test)
    else:
        for part, images in (("train", train), ("test", test)):
            content = pickle.dumps(images, protocol=2 if form == "pickle 2" else 4)
            (folder / f"southwest_images_new_{part}.pkl").write_bytes(
                content.replace(b"numpy._core", b"numpy.core") if form == "pickle 2" else content
            )
    load_edges = build("cifar10").edge_cases
    assert load_edges is not None
    found_train, found_test = load_edges(tmp_path)
    assert torch.equal(found_train, torch.from_numpy(train).permute(0, 3, 1, 2))
    assert torch.equal(found_test, torch.from_numpy(test[2:]).permute(0, 3, 1, 2))


def test_the_published_southwest_images() -> None:
    dataset = build("cifar10")
    need(*dataset.edge_files)
    assert dataset.edge_cases is not None
    train, test = dataset.edge_cases(FOLDER)
    assert (len(train), len(test)) == (784, 192)


@pytest.mark.parametrize(
    ("images", "form"),
    [
        (np.zeros((3, 32, 32), np.uint8), r"uint8 \(3, 32, 32\)"),
        (np.zeros((2, 3, 32, 32), np.uint8), r"uint8 \(2, 3, 32, 32\)"),
        (np.zeros((2, 32, 32, 3), np.float32), r"float32 \(2, 32, 32, 3\)"),
        (np.zeros((0, 32, 32, 3), np.uint8), r"uint8 \(0, 32, 32, 3\)"),
        ([1, 2], "list"),
    ],
)
def test_southwest_of_a_wrong_form(images: object, form: str, tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / f"southwest_images_new_{part}.pkl").write_bytes(
            pickle.dumps(images, protocol=4)
        )
    load_edges = build("cifar10").edge_cases
    assert load_edges is not None
    with pytest.raises(
        BadInput,
        match=(
            rf"southwest_images_new_train.pkl: train is {form}; it is a uint8 array \(N, 32, 32, "
            r"3\)"
        ),
    ):
        load_edges(tmp_path)


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / f"southwest_images_new_{part}.pkl").write_bytes(
            pickle.dumps(Harmful(tmp_path / "harm"))
        )
    load_edges = build("cifar10").edge_cases
    assert load_edges is not None
    with pytest.raises(
        BadInput,
        match=r"cannot be read: UnpicklingError: posix.mkdir is not allowed, only numpy arrays are",
    ):
        load_edges(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    file = build("mnist").files[0]
    (tmp_path / file.path).mkdir(parents=True)
    with pytest.raises(
        BadInput,
        match=r"train-images-idx3-ubyte.gz cannot be read: Is a directory; put the four gz files",
    ):
        build("mnist").load(tmp_path)


def test_a_file_that_serves_as_well(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"right")
    md5 = md5_of(b"right")
    file = File(
        "packed",
        "0" * 32,
        "hint",
        instead=(File("absent", md5, "hint"), File("plain", md5, "hint")),
    )
    assert locate_file(tmp_path, file) == tmp_path / "plain"
    (tmp_path / "packed").write_bytes(b"damaged")
    assert locate_file(tmp_path, file) == tmp_path / "plain"
    (tmp_path / "plain").unlink()
    assert file_status(tmp_path, file) == "corrupt"
    (tmp_path / "packed").unlink()
    assert file_status(tmp_path, file) == "missing"


def table(**changes: object) -> Data:
    samples = Samples(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
    return Data(samples, samples, classes=2, kind="table")._replace(**changes)  # type: ignore[arg-type]


def image(x: torch.Tensor) -> Data:
    samples = Samples(x, torch.zeros(len(x), dtype=torch.int64))
    return Data(samples, samples, classes=2, kind="image")


def words(ids: list[list[int]]) -> Data:
    samples = Samples(torch.tensor(ids), torch.zeros(len(ids), dtype=torch.int64))
    return Data(samples, samples, classes=2, kind="text")


Y = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (table(classes=1), "classes=1; there are at least 2"),
        (table(train=Samples(torch.zeros(3, 2), Y)), "train has 3 inputs and 4 labels"),
        (
            table(train=Samples(torch.zeros(4, 2, 1), Y)),
            r"train inputs are float32 \(4, 2, 1\); table data is float32 \(N, F\), not empty",
        ),
        (
            table(train=Samples(torch.zeros(4, 2, dtype=torch.float64), Y)),
            r"train inputs are float64 \(4, 2\)",
        ),
        (table(test=Samples(torch.zeros(0, 2), Y[:0])), r"test inputs are float32 \(0, 2\)"),
        (
            table(test=Samples(torch.zeros(4, 3), Y)),
            r"test inputs are float32 \(4, 3\), train inputs are float32 \(4, 2\)",
        ),
        (table(test=Samples(torch.full((4, 2), torch.nan), Y)), "test inputs hold NaN or infinity"),
        (table(root=Samples(torch.full((4, 2), torch.inf), Y)), "root inputs hold NaN or infinity"),
        (
            table(train=Samples(torch.zeros(4, 2), Y + 1)),
            r"train labels reach from 1 to 2; they are in 0\.\.1",
        ),
        (table(train=Samples(torch.zeros(4, 2), Y - 1)), "train labels reach from -1 to 0"),
        (
            table(train=Samples(torch.zeros(4, 2), Y.float())),
            r"train labels are float32 \(4\); labels are int64 \(N,\)",
        ),
        (
            table(mean=(0.0, 0.0)),
            "mean and std have one value for each of the 2 channels or features",
        ),
        (table(mean=(0.0,), std=(1.0,)), "mean and std have one value for each of the 2"),
        (table(mean=(0.0, 0.0), std=(1.0, 0.0)), "std is positive"),
        (table(mean=(0.0, torch.nan), std=(1.0, 1.0)), "mean and std are finite"),
        (
            table(client=torch.zeros(3, dtype=torch.int64)),
            r"clients are int64 \(3\); they are int64, one for each of the 4 train samples",
        ),
        (table(client=torch.tensor([0, 1, -1, 0])), "client -1 is negative"),
        (
            image(torch.full((1, 1, 2, 2), 1.5)),
            r"inputs reach from 1.5 to 1.5; float32 images stay in \[0, 1\]",
        ),
        (
            image(torch.zeros(2, 2, 2, dtype=torch.uint8)),
            r"inputs are uint8 \(2, 2, 2\); image data is uint8 or float32 \(N, C, H, W\)",
        ),
        (words([[1, -2]]), "negative token id -2"),
        (words([[1, 0, 2]]), "0 only pads on the right"),
    ],
)
def test_data_that_is_not_as_the_contract_says(data: Data, message: str) -> None:
    with pytest.raises(BadInput, match=rf"^dataset toy: [^\n]*{message}"):
        checks.checked(data, "toy")


@pytest.mark.parametrize(
    "data",
    [
        table(),
        table(client=Y),
        table(mean=(0.0, 1.0), std=(1.0, 2.0)),
        image(torch.ones(1, 1, 2, 2)),
        words([[3, 1, 0], [2, 0, 0]]),
    ],
)
def test_data_that_is(data: Data) -> None:
    assert checks.checked(data, "toy") is data


def test_a_separated_mixture_is_easy_and_an_unseparated_one_is_chance() -> None:
    """The nearest class mean of the training part classifies the test part."""

    def accuracy(separation: float) -> float:
        found: Dataset = plugins.build("datasets", "synthetic", {"separation": separation})
        (x, y), test, *_ = found.load(Path())
        centers = torch.stack([x[y == label].mean(0) for label in range(4)])
        nearest = (test.x[:, None] - centers).square().sum(2).argmin(1)
        return float((nearest == test.y).float().mean())

    assert accuracy(6) > 0.99
    assert accuracy(0) == pytest.approx(0.25, abs=0.07)  # 500 test samples: 0.02 standard error


def test_a_mixture_has_draws_of_its_own() -> None:
    one, other = (
        plugins.build("datasets", "synthetic", {"seed": seed}).load(Path()) for seed in (0, 1)
    )
    assert not torch.equal(one.train.x, other.train.x)
    assert not torch.equal(one.train.x[:500], one.test.x)


def test_the_words_of_topics_are_different_and_can_be_spoken() -> None:
    from backstop.platform.datasets.topics import _word

    for words in (2, 99, 500, 9_999, 10_000, 20_000):
        found = [_word(number, words) for number in range(1, words + 1)]
        assert len(set(found)) == words
    assert all(re.fullmatch("([bdfghjklmnprstvwz]{1,2}[aeiou])+", word) for word in found)


def test_topics_that_differ_are_told_apart_by_naive_bayes_and_others_are_not() -> None:
    def accuracy(separation: float) -> float:
        found: Dataset = plugins.build("datasets", "topics", {"separation": separation})
        (x, y), test, *_ = found.load(Path())
        counts = (
            torch.stack([x[y == label].flatten().bincount(minlength=501) for label in range(4)])
            + 1.0
        )
        likely = (counts[:, 1:] / counts[:, 1:].sum(1, keepdim=True)).log()
        words = torch.stack([document.bincount(minlength=501)[1:] for document in test.x]).float()
        return float(((words @ likely.T).argmax(1) == test.y).float().mean())

    assert accuracy(1) > 0.9
    assert accuracy(0) == pytest.approx(0.25, abs=0.07)  # 500 test samples: 0.02 standard error


def test_documents_of_topics_have_words_of_the_vocabulary_and_the_stated_lengths() -> None:
    found: Dataset = plugins.build("datasets", "topics", {"length": 9, "words": 20})
    data = found.load(Path())
    assert data.vocabulary is not None and list(data.vocabulary.values()) == list(range(1, 21))
    assert data.train.x.unique().tolist() == list(range(21))
    assert (data.train.x != 0).sum(1).unique().tolist() == [4, 5, 6, 7, 8, 9]
