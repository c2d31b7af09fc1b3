"""Local files of Hugging Face's library datasets: it comes with the extra ``models``, which the
environment of the other tests does not have.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backstop.platform import cli, extras, plugins
from backstop.platform.contract import Data, Part, Spec
from backstop.platform.experiment import run
from backstop.platform.params import BadInput
from backstop.platform.rounds.finals import final

TEXTS = ["good news today", "bad news today", "good good day", "bad day today"]


@pytest.fixture
def datasets() -> Any:
    reason = "datasets is not installed: the extra models brings it"
    return pytest.importorskip("datasets", reason=reason, exc_type=ImportError)


def load(folder: Path, **params: Any) -> Data:
    data: Data = plugins.build("datasets", "hf", params).load(folder)
    return data


def test_without_the_library_a_load_is_one_line_and_a_list_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    line = r"^dataset hf needs datasets, which is not installed; the extra models brings it: pip"
    lines(tmp_path / "mine", "train.jsonl", TEXTS)
    with pytest.raises(BadInput, match=line):
        load(tmp_path, path="mine")
    folder = ["--data-dir", str(tmp_path)]
    assert cli.main(["data", *folder]) == 0
    assert "hf" in capsys.readouterr().out
    assert cli.main(["show", "hf"]) == 0
    assert cli.main(["list", "datasets"]) == 0
    assert cli.main(["data", "hf", *folder]) == 1
    assert "put what save_to_disk wrote" in capsys.readouterr().out


def pictures(datasets: Any, count: int, kind: str = "RGB") -> Any:
    from PIL import Image

    draws = np.random.default_rng(count)
    label = [row % 3 for row in range(count)]
    images = []
    for row in label:
        pixels = draws.integers(0, 60, (6, 6, 3)).astype(np.uint8)
        pixels[row * 2 : row * 2 + 2] = 255
        images.append(Image.fromarray(pixels).convert(kind))
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["top", "middle", "low"])}
    )
    return datasets.Dataset.from_dict({"image": images, "label": label}, features=features)


def test_images_that_save_to_disk_wrote(datasets: Any, tmp_path: Path) -> None:
    both = {"train": pictures(datasets, 30), "test": pictures(datasets, 9)}
    datasets.DatasetDict(both).save_to_disk(str(tmp_path / "mine"))
    data = load(tmp_path, path="mine", size=None)
    assert data.kind == "image" and data.train.x.shape == (30, 3, 6, 6)
    assert data.train.x.dtype == torch.uint8 and data.test.y.tolist() == [0, 1, 2] * 3
    assert data.reading is not None
    assert data.reading.classes == {"top": 13, "middle": 13, "low": 13}
    stored = np.asarray(both["train"][4]["image"]).transpose(2, 0, 1)
    assert np.array_equal(data.train.x[4].numpy(), stored)
    gray = load(tmp_path, path="mine", size=8, pixels="gray")
    assert gray.train.x.shape == (30, 1, 8, 8)
    spec = Spec(
        dataset=Part("hf", {"path": "mine", "size": 8}),
        clients=3,
        per_round=3,
        rounds=3,
        alpha=None,
        root_size=0,
        batch=8,
        optimizer=Part("adam", {"lr": 0.01}),
    )
    assert final(list(run(spec, folder=tmp_path, device="cpu")))["final/clean_accuracy"] > 0.9


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "arrow"])
def test_columns_of_numbers_from_files_of_each_kind(
    datasets: Any, ending: str, tmp_path: Path
) -> None:
    columns = {
        "a": [row / 7 for row in range(20)],
        "b": [row * row for row in range(20)],
        "kind": ["up" if row % 3 else "down" for row in range(20)],
        "site": [f"s{row % 4}" for row in range(20)],
    }
    made = datasets.Dataset.from_dict(columns)
    (tmp_path / "mine").mkdir()
    place = tmp_path / "mine" / f"train-00000-of-00001.{ending}"
    if ending == "parquet":
        made.to_parquet(str(place))
    elif ending == "csv":
        made.to_csv(str(place))
    elif ending == "jsonl":
        made.to_json(str(place))
    else:
        from pyarrow import ipc

        with ipc.new_stream(str(place), made.data.table.schema) as stream:
            stream.write_table(made.data.table)
    before = sorted(tmp_path.rglob("*"))
    data = load(tmp_path, path="mine", x="a+b", y="kind", client="site", test=0.25)
    assert sorted(tmp_path.rglob("*")) == before  # nothing is left beside the files
    assert data.kind == "table" and data.train.x.shape == (15, 2) and data.test.x.shape == (5, 2)
    assert data.reading is not None and list(data.reading.classes) == ["down", "up"]
    assert data.reading.clients == ("s0", "s1", "s2", "s3")
    assert data.client is not None
    for (a, b), label, site in zip(data.train.x, data.train.y, data.client, strict=True):
        row = round(float(a) * 7)
        assert float(b) == row * row and bool(label) == bool(row % 3) and int(site) == row % 4
    assert load(tmp_path, path="mine", x="b", y="kind").train.x.shape == (16, 1)


def lines(folder: Path, name: str, texts: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    rows = [{"text": text, "label": int("good" in text)} for text in texts]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_texts_become_words_of_the_training_part(datasets: Any, tmp_path: Path) -> None:
    lines(tmp_path / "mine", "train.jsonl", [*TEXTS, TEXTS[0]])
    lines(tmp_path / "mine", "validation.jsonl", ["good weather", "bad"])
    data = load(tmp_path, path="mine", x="text", y="label", length=4)
    names = ["<unknown>", "good", "today", "news", "bad", "day"]
    assert data.kind == "text" and list(data.vocabulary or ()) == names
    assert data.train.x[0].tolist() == [2, 4, 3, 0] == data.train.x[4].tolist()
    assert data.test.x.tolist() == [[2, 1, 0, 0], [5, 0, 0, 0]]
    assert data.test.y.tolist() == [1, 0]
    drawn = load(tmp_path, path="mine/train.jsonl", x="text", y="label", test=0.25)
    both = {tuple(row) for row in drawn.train.x.tolist()}
    assert not both & {tuple(row) for row in drawn.test.x.tolist()}  # copies stay together


def test_a_tokenizer_of_a_folder_makes_its_own_ids(datasets: Any, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed", exc_type=ImportError
    )
    known = {"<s>": 0, "<pad>": 1, "<unk>": 2, "good": 3, "bad": 4, "news": 5, "today": 6, "day": 7}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    (tmp_path / "base").mkdir()
    made.save(str(tmp_path / "base" / "tokenizer.json"))
    lines(tmp_path / "mine", "train.jsonl", TEXTS)
    lines(tmp_path / "mine", "test.jsonl", ["good weather", "bad"])
    data = load(tmp_path, path="mine", x="text", y="label", tokenizer="base", length=5)
    # the ids of padding and of the beginning are exchanged
    assert data.train.x[0].tolist() == [1, 3, 5, 6, 0] and data.test.x[0].tolist() == [
        1,
        3,
        2,
        0,
        0,
    ]
    assert data.vocabulary is not None
    assert data.vocabulary["<s>"] == 1 and "<pad>" not in data.vocabulary
    with pytest.raises(BadInput, match=r"other/tokenizer.json is missing; put a tokenizer.json"):
        load(tmp_path, path="mine", x="text", y="label", tokenizer="other")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"x": "txt"}, r"mine has no column 'txt'; did you mean 'text'\?"),
        ({"y": "labels"}, r"mine has no column 'labels'; did you mean 'label'\?"),
        ({"client": "user"}, "mine has no column 'user'"),
        ({"split": "tran"}, r"mine has no split 'tran'; did you mean 'train'\?"),
        ({"test_split": "test"}, "mine has no split 'test'"),
        ({"x": "text+label"}, "column 'text' holds str; x is images, texts, or numbers"),
        ({"y": "text"}, None),
        ({"path": "none"}, "none is missing; put what save_to_disk wrote"),
        ({"path": "other"}, "other has files of none of these; there are files of one kind"),
        ({"path": "empty"}, r"column 'text' has no text in row 1 \(from 0\)"),
        ({"path": "broken"}, "broken"),
    ],
)
def test_what_is_not_there_is_one_line(
    datasets: Any, params: dict[str, Any], words: str | None, tmp_path: Path
) -> None:
    lines(tmp_path / "mine", "train.jsonl", TEXTS)
    lines(tmp_path / "empty", "train.jsonl", ["good", " "])
    (tmp_path / "other").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_text("no parquet")
    with pytest.raises(BadInput, match=words) as caught:
        load(tmp_path, **{"path": "mine", "x": "text", "y": "label", **params})
    assert "\n" not in str(caught.value)


def test_no_hub_is_asked(datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a connection is asked for")

    monkeypatch.setattr("socket.socket.connect", refused)
    lines(tmp_path / "mine", "train.jsonl", TEXTS * 2)
    assert len(load(tmp_path, path="mine", x="text", y="label").train.y)
    assert "datasets" in sys.modules
