"""Somebody's own data: a file for each client, folders of images, arrays; what cannot be used is
refused in one line, and `backstop data` says who holds what.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backstop.platform import cli, plugins
from backstop.platform.contract import Data
from backstop.platform.intake.patterns import matches
from backstop.platform.params import BadInput
from backstop.platform.training.skew import skew_of

HEAD = "age,sex,outcome"


def rows(count: int, start: int = 0) -> list[str]:
    """Distinct rows of a table, ill and well in turn."""
    return [
        f"{start + index}.5,{'mf'[index % 2]},{('ill', 'well')[index // 2 % 2]}"
        for index in range(count)
    ]


def hospital(number: int, lines: list[str], head: str = HEAD) -> None:
    Path("clients").mkdir(exist_ok=True)
    Path(f"clients/hospital_{number}.csv").write_text("\n".join([head, *lines]) + "\n")


def load(name: str, **params: Any) -> Data:
    data: Data = plugins.build("datasets", name, params).load(Path())
    return data


def refused(name: str, message: str, **params: Any) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        load(name, **params)
    assert "\n" not in str(caught.value)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder is the data folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKSTOP_DATA", ".")


# -- a file for each client


def hospitals() -> None:
    for number, count in ((1, 30), (2, 20), (10, 40)):
        hospital(number, rows(count, 100 * number))


def test_each_file_of_a_pattern_is_a_client_in_the_order_of_its_number() -> None:
    hospitals()
    data = load("table", path="clients/hospital_*.csv", text="sex")
    assert data.reading is not None and data.client is not None
    assert data.reading.clients == ("hospital_1", "hospital_2", "hospital_10")
    age = data.train.x[:, 0]
    for client, (low, high) in enumerate(((100, 130), (200, 220), (1000, 1040))):
        ages = age[data.client == client]
        assert len(ages) and low <= ages.min() and ages.max() < high


def test_a_column_of_clients_gives_the_same_federation() -> None:
    hospitals()
    lines = [
        f"{line},hospital_{number:02}"
        for number, count in ((1, 30), (2, 20), (10, 40))
        for line in rows(count, 100 * number)
    ]
    Path("all.csv").write_text("\n".join([f"{HEAD},where", *lines]))
    one = load("table", path="all.csv", label="outcome", client="where")
    many = load("table", path="clients/*.csv", label="outcome")
    assert torch.equal(one.train.x, many.train.x) and torch.equal(one.test.y, many.test.y)
    assert one.client is not None and many.client is not None
    assert torch.equal(one.client, many.client)


def test_columns_may_stand_in_another_order() -> None:
    hospitals()
    before = load("table", path="clients/*.csv", label="outcome")
    lines = [",".join(reversed(line.split(","))) for line in rows(20, 200)]
    hospital(2, lines, "outcome,sex,age")
    after = load("table", path="clients/*.csv", label="outcome")
    assert torch.equal(before.train.x, after.train.x)


@pytest.mark.parametrize(
    ("lines", "head", "message"),
    [
        (["1.5,ill"], "age,outcome", r"hospital_2\.csv lacks 'sex': .* columns of hospital_1\.csv"),
        (["1,m,3,ill"], "age,sex,bmi,outcome", r"hospital_2\.csv has 'bmi' besides"),
        (["1,m,ill"], "Age,sex,outcome", r"lacks 'age' and has 'Age' besides"),
        (["1,m,ill", "unknown,f,well"], HEAD, r"'unknown' in line 3 of hospital_2\.csv"),
        ([], HEAD, r"hospital_2\.csv cannot be read: it has 1 rows"),
        (["1,m"], HEAD, r"hospital_2\.csv.*line 2"),
    ],
)
def test_a_file_that_does_not_go_with_the_others_is_named(
    lines: list[str], head: str, message: str
) -> None:
    hospitals()
    hospital(2, lines, head)
    refused("table", message, path="clients/hospital_*.csv")


def test_a_pattern_without_files_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    refused("table", r"clients/\*\.csv is missing; put a csv file there", path="clients/*.csv")
    hospitals()
    with pytest.raises(BadInput, match=r"is there: paths are relative to the data folder"):
        plugins.build("datasets", "table", {"path": "clients/*.csv"}).load(Path("other"))


def test_a_file_that_is_called_as_a_pattern_is_that_file() -> None:
    Path("a[1].csv").write_text("x")
    Path("a1.csv").write_text("x")
    assert matches(Path("a[1].csv")) == [Path("a[1].csv")]
    assert matches(Path("a*.csv")) == [Path("a1.csv"), Path("a[1].csv")]


# -- images


def picture(place: str, value: int, size: tuple[int, int] = (9, 6), mode: str = "RGB") -> None:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), value, np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).convert(mode).save(place)


def pictures(root: str = "images", classes: str = "ab", count: int = 10) -> None:
    for label, name in enumerate(classes):
        for index in range(count):
            picture(f"{root}/{name}/{index}.png", 100 * label + index)


def test_a_folder_of_class_folders() -> None:
    pictures()
    Path("images/a/notes.txt").write_text("by hand")
    Path("images/a/.DS_Store").write_text("")
    data = load("folder", size=8)
    assert data.train.x.shape == (16, 3, 8, 8) and data.train.x.dtype == torch.uint8
    assert data.reading is not None and data.reading.classes == {"a": 10, "b": 10}
    assert data.reading.dropped == {"no image by its name": 1}
    middle = data.train.x[:, 0, 4, 4]
    assert torch.equal(middle >= 100, data.train.y == 1)
    assert load("folder", size=None, pixels="gray").train.x.shape[1:] == (1, 6, 9)


def test_given_parts_are_kept_and_copies_counted() -> None:
    pictures("images/train")
    pictures("images/val", "a", 3)
    data = load("folder", size=8)
    assert (len(data.train.y), len(data.test.y)) == (20, 3)
    assert data.reading is not None and data.reading.across == 3
    assert data.reading.notes == ("class 'b' has no test images",)


def test_copies_of_an_image_are_on_one_side() -> None:
    pictures()
    for index in range(10):
        picture(f"images/a/copy_{index}.png", index)
    data = load("folder", size=8)
    assert data.reading is not None and data.reading.across == 0 and data.reading.copies > 0


def test_folders_above_the_classes_are_clients() -> None:
    pictures("images/north")
    pictures("images/south", "a", 6)
    data = load("folder", size=8, clients=True)
    assert data.reading is not None and data.reading.clients == ("north", "south")
    assert data.client is not None
    assert set(data.train.y[data.client == 1].tolist()) == {0}


def spoil(place: str, content: bytes) -> Callable[[], None]:
    return lambda: void(Path(place).write_bytes(content))


def void(_: object) -> None:
    """Whatever it is, it is not needed."""


def deep() -> None:
    Image.fromarray(np.full((6, 9), 60000, np.uint16)).save("images/a/0.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("images/a/0.png", b"none"), r"images/a/0\.png cannot be read: .*; replace it or"),
        (lambda: Path("images/c").mkdir(), r"images/c holds no image \(0 other files\)"),
        (lambda: void(Path("images/b").rename("b")), "images has 1 class, a; there are 2 to 1000"),
        (lambda: void(Path("images").rename("other")), r"images is missing; put a folder there"),
        (deep, r"images/a/0\.png has more than 8 bits a pixel \(mode I;16\)"),
        (
            lambda: picture("images/a/0.png", 5, (7, 7)),
            r"has 9×6 pixels and 0\.png 7×7; folder\(si",
        ),
    ],
)
def test_images_that_cannot_be_used(change: Callable[[], None], message: str) -> None:
    pictures()
    change()
    refused("folder", message, size=None)


# -- arrays


DRAWS = np.random.default_rng(0)
PIXELS = DRAWS.integers(0, 256, (60, 6, 5))
LABELS = np.arange(60) % 3


def save(**arrays: Any) -> None:
    np.savez("arrays.npz", **arrays)


@pytest.mark.parametrize(
    ("x", "shape", "dtype"),
    [
        (PIXELS.astype(np.uint8), (1, 6, 5), torch.uint8),
        (PIXELS, (1, 6, 5), torch.uint8),
        (PIXELS / 255, (1, 6, 5), torch.float32),
        (np.stack([PIXELS] * 3, 3) / 255, (3, 6, 5), torch.float32),
        (np.stack([PIXELS] * 3, 1), (3, 6, 5), torch.uint8),
        (PIXELS[:, 0] * 1.5, (5,), torch.float32),
    ],
)
def test_arrays_are_images_or_a_table(x: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    save(x=x, y=LABELS)
    data = load("arrays")
    assert (*data.train.x.shape[1:],) == shape and data.train.x.dtype == dtype
    assert data.kind == ("table" if len(shape) == 1 else "image")
    assert (len(data.train.y), len(data.test.y)) == (48, 12)


def test_a_given_test_part_text_labels_and_clients_are_kept() -> None:
    names = np.array(["no", "yes"])[LABELS % 2]
    clients = np.array(["west", "east"])[LABELS // 2]
    save(x_train=PIXELS, y_train=names, x_test=PIXELS[:4], y_test=names[:4], client=clients)
    data = load("arrays")
    assert data.reading is not None and data.reading.classes == {"no": 43, "yes": 21}
    assert data.reading.clients == ("east", "west") and len(data.test.y) == 4
    assert data.client is not None and torch.equal(data.client, torch.tensor(LABELS // 2 == 0) * 1)


class Trap:
    """Unpickled, it would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("sprung"),))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": PIXELS}, "has no array 'y'; "),
        ({"x": PIXELS, "y": LABELS[:-1]}, "x has 60 and y 59 samples"),
        ({"x": PIXELS, "y": LABELS * 0}, "y has 1 distinct values; there are 2 to 1000 classes"),
        ({"x": PIXELS, "y": LABELS + 0.5}, "y holds fractions or NaN"),
        ({"x": PIXELS, "y": np.eye(3)[LABELS]}, r"of one-hot rows take argmax\(axis=1\)"),
        (
            {"x": PIXELS * 1.0, "y": LABELS},
            r"reaches from 0 to 25\d in float64; .*astype\('uint8'\)",
        ),
        ({"x": PIXELS * 0.9, "y": LABELS}, "save x / 255"),
        ({"x": PIXELS / 127 - 1, "y": LABELS}, "reaches from -1 to .*: the platform does that"),
        ({"x": PIXELS[:, 0] * np.nan, "y": LABELS}, r"in 60 rows, first in row 0 \(from 0\)"),
        ({"x": PIXELS.astype(str), "y": LABELS}, "pixels are numbers"),
        ({"x": PIXELS[:, :3, None, :3], "y": LABELS}, "channels=first or last"),
        ({"x": PIXELS[:0], "y": LABELS[:0]}, r"x is empty, \(0, 6, 5\)"),
        ({"x": PIXELS, "y": LABELS, "x_test": PIXELS}, "one of x_test and y_test"),
        (
            {"x": PIXELS, "y": LABELS, "x_test": PIXELS, "y_test": LABELS + 1},
            "y_test has '3', which no training sample has",
        ),
        ({"x": PIXELS, "y": LABELS, "client": LABELS[1:]}, "x has 60 and y 60 and client 59"),
        ({"x": PIXELS, "y": np.array([Trap()] * 60)}, "'y' holds Python objects, which are not"),
    ],
)
def test_arrays_that_cannot_be_used(arrays: dict[str, Any], message: str) -> None:
    save(**arrays)
    refused("arrays", message)
    assert not Path("sprung").exists()


def test_what_is_no_npz_is_named() -> None:
    np.save("arrays.npy", PIXELS)
    refused("arrays", r"arrays\.npy is a single array; save all of them", path="arrays.npy")
    np.save("objects.npy", np.array([Trap()]))
    Path("objects.npy").rename("arrays.npz")
    refused("arrays", "is a single array")
    assert not Path("sprung").exists()


# -- who holds what


def data_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert cli.main(["data", *arguments, "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)
    return item


def test_data_shows_the_natural_clients_with_sizes_and_labels(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hospitals()
    split = data_of(capsys, "table(path=clients/*.csv)")["split"]
    assert split["alpha"] == "natural" and split["root"] == 0
    assert [row["client"] for row in split["clients"]] == [
        "hospital_1",
        "hospital_2",
        "hospital_10",
    ]
    for row in split["clients"]:
        assert row["samples"] == sum(row["labels"].values()) > 0
    assert cli.main(["data", "table(path=clients/*.csv)"]) == 0
    out = capsys.readouterr().out
    assert "    3 clients (natural), 72 samples to train on\n" in out
    assert "total variation" in out and "hospital_10" in out


def test_data_shows_the_split_that_a_run_has(capsys: pytest.CaptureFixture[str]) -> None:
    from backstop.platform.experiment import Experiment
    from backstop.platform.specs.part import Part
    from backstop.platform.specs.spec import Spec

    split = data_of(
        capsys, "digits", "--clients", "7", "--alpha", "0.3", "--seed", "4", "--root-size", "50"
    )["split"]
    spec = Spec(dataset=Part("digits"), clients=7, per_round=7, alpha=0.3, seed=4, root_size=50)
    built = Experiment(spec, Path(), "cpu").built
    assert [row["samples"] for row in split["clients"]] == [len(shard) for shard in built.shards]
    assert split["root"] == 50 and "split" not in data_of(capsys, "digits")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alpha", "1"], "--alpha is about the clients of one dataset; name it"),
        (["digits", "--alpha", "natural"], "this dataset has no clients of its own"),
        (["digits", "--clients", "0"], "--clients: clients=0 is not allowed"),
    ],
)
def test_a_split_that_cannot_be_is_bad_input(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_skew_of_hand_made_clients() -> None:
    skew = skew_of(torch.tensor([[6, 0], [1, 1]]))  # of all 7/8 and 1/8
    assert skew.label_mean == pytest.approx((1 / 8 + 3 / 8) / 2)
    assert skew.label_most == pytest.approx(3 / 8)
    assert (skew.spread, skew.ratio) == (0.5, 3.0)
