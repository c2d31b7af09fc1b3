"""Datasets in LEAF's form, read from files that look like its own."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backstop.platform import cli
from backstop.platform.contract import Data, Part, Spec
from backstop.platform.datasets import femnist as femnist_file
from backstop.platform.datasets import shakespeare as shakespeare_file
from backstop.platform.experiment import Experiment, run
from backstop.platform.params import BadInput
from backstop.platform.plugins import build
from backstop.platform.rounds.finals import final
from backstop.platform.specs.part import to_chain

Users = dict[str, dict[str, list[Any]]]
LETTERS = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
LINE = "The quality of mercy is not strained; it droppeth as the gentle rain from heaven upon "


def write(folder: Path, name: str, part: str, *files: Users) -> Path:
    place = folder / name / "data" / part
    place.mkdir(parents=True)
    for number, users in enumerate(files):
        document = {
            "users": list(users),
            "num_samples": [len(samples["y"]) for samples in users.values()],
            "user_data": users,
            "hierarchies": [],
        }
        (place / f"all_data_{number}_niid.json").write_text(json.dumps(document))
    return place


def image(value: int, at: int) -> list[float]:
    """A white page, on which one pixel has a gray value."""
    bytes_ = np.full(28 * 28, 255)
    bytes_[at] = value
    return [float(gray) for gray in (bytes_ / 255).tolist()]


def writer(*labels: int) -> dict[str, list[Any]]:
    return {"x": [image(label, label) for label in labels], "y": list(labels)}


def role(text: str, count: int) -> dict[str, list[Any]]:
    return {
        "x": [text[start : start + 80] for start in range(count)],
        "y": [text[start + 80] for start in range(count)],
    }


def comments(*texts: str) -> dict[str, list[Any]]:
    """Comments as LEAF's data/reddit/source/preprocess.py makes them of tokenized texts."""
    user: dict[str, list[Any]] = {"x": [], "y": []}
    for number, text in enumerate(texts):
        before = ["<BOS>", *text.split(), "<EOS>"]
        after = [*text.split(), "<EOS>", "<PAD>"]
        count = [1.0] * len(before)
        lacking = -len(before) % 10
        user["x"].append(pieces([*before, *["<PAD>"] * lacking]))
        user["y"].append(
            {
                "subreddit": "askscience",
                "created_utc": str(1512086400 + number),
                "score": 1,
                "target_tokens": pieces([*after, *["<PAD>"] * lacking]),
                "count_tokens": pieces([*count, *[0.0] * lacking]),
            }
        )
    return user


def pieces(items: list[Any]) -> list[list[Any]]:
    return [items[start : start + 10] for start in range(0, len(items), 10)]


def writers(folder: Path) -> None:
    write(
        folder, "femnist", "train", {"f2": writer(61, 10)}, {"f1": writer(0, 3, 36), "f0": writer()}
    )
    write(folder, "femnist", "test", {"f1": writer(9), "f9": writer(35)})


def roles(folder: Path) -> None:
    text = LINE + LINE
    write(
        folder, "shakespeare", "train", {"PORTIA": role(text, 40), "BASSANIO": role(text[3:], 30)}
    )
    write(folder, "shakespeare", "test", {"PORTIA": role(text[7:], 12)})


def test_femnist_by_its_writers(tmp_path: Path) -> None:
    writers(tmp_path)
    data: Data = build("datasets", "femnist", {}).load(tmp_path)
    assert data.classes == 62 and data.train.x.shape == (5, 1, 28, 28)
    assert data.train.x.dtype == torch.uint8
    assert data.train.y.tolist() == [0, 3, 36, 61, 10]  # by the names of the writers
    assert data.client is not None and data.client.tolist() == [0, 0, 0, 1, 1]
    assert data.test.y.tolist() == [9, 35]
    for x, label in zip(data.train.x, data.train.y.tolist(), strict=True):
        flat = x.flatten()
        assert int(flat[label]) == 255 - label and int(flat.sum()) == 255 - label
    reading = data.reading
    assert reading is not None and reading.clients == ("f1", "f2")
    assert reading.notes == ("1 users have test samples alone",)
    names = string.digits + string.ascii_uppercase + string.ascii_lowercase
    assert list(reading.classes) == list(names)
    dark: Data = build("datasets", "femnist", {"ink": "dark"}).load(tmp_path)
    assert torch.equal(dark.train.x, 255 - data.train.x)


def test_shakespeare_by_roles(tmp_path: Path) -> None:
    roles(tmp_path)
    data: Data = build("datasets", "shakespeare", {}).load(tmp_path)
    assert "".join(shakespeare_file.CHARACTERS) == LETTERS and data.classes == len(LETTERS) == 80
    assert data.train.x.shape == (70, 80) and data.test.x.shape == (12, 80)
    assert data.client is not None and data.client.bincount().tolist() == [30, 40]
    text = (LINE + LINE)[3:]
    first = "".join(LETTERS[token - 2] for token in data.train.x[0].tolist())
    assert first == text[:80] and LETTERS[data.train.y[0]] == text[80]
    assert data.vocabulary is not None and data.vocabulary["T"] == LETTERS.index("T") + 2
    assert data.reading is not None and data.reading.clients == ("BASSANIO", "PORTIA")


def test_other_characters_are_one_token_and_no_class(tmp_path: Path) -> None:
    odd = {"x": ["ab", "é_", "x"], "y": ["c", "d", "é"]}
    write(tmp_path, "shakespeare", "train", {"A": odd})
    write(tmp_path, "shakespeare", "test", {"A": role(LINE, 3)})
    data: Data = build("datasets", "shakespeare", {}).load(tmp_path)
    a, b = (LETTERS.index(letter) + 2 for letter in "ab")
    assert data.train.x[:, :3].tolist() == [[a, b, 0], [1, 1, 0]]
    assert data.train.y.tolist() == [LETTERS.index("c"), LETTERS.index("d")]
    assert data.reading is not None
    assert data.reading.dropped == {"next character is none of the 80": 1}


def redditors(folder: Path, counted: int = 5) -> None:
    """Two users, whose counts are those of all three parts."""
    parts = {
        "train": {"2": comments("pasta is good", "is it"), "1": comments("a b c d e f g h i is")},
        "test": {"2": comments("pasta is bad"), "1": comments("good", "is it not")},
    }
    for part, users in parts.items():
        place = write(folder, "reddit", part, users) / "all_data_0_niid.json"
        document = json.loads(place.read_text())
        place.write_text(json.dumps({**document, "num_samples": [counted] * 2}))


def test_reddit_by_its_users(tmp_path: Path) -> None:
    redditors(tmp_path)
    data: Data = build("datasets", "reddit", {}).load(tmp_path)
    assert data.vocabulary is not None and data.reading is not None
    # three times each: <BOS>, <EOS> and "is"; all others once
    names = ["<unknown>", "<BOS>", "<EOS>", "is", *"abcdefg", "good", "h", "i", "it", "pasta"]
    assert list(data.vocabulary) == names and list(data.vocabulary.values()) == [*range(1, 17)]
    assert data.classes == 15 and list(data.reading.classes) == names[1:]
    assert data.reading.clients == ("1", "2")
    assert data.client is not None and data.client.tolist() == [0] * 11 + [1] * 7
    sentences = [told(data, row) for row in range(len(data.train.y))]
    assert sentences[:2] == ["<BOS> → a", "<BOS> a → b"]
    assert sentences[9:11] == ["<BOS> a b c d e f g h i → is", "is → <EOS>"]  # the second piece
    assert sentences[11:] == [
        "<BOS> → pasta",
        "<BOS> pasta → is",
        "<BOS> pasta is → good",
        "<BOS> pasta is good → <EOS>",
        "<BOS> → is",
        "<BOS> is → it",
        "<BOS> is it → <EOS>",
    ]
    asked = data.test
    assert asked.x.shape == (8, 10) and asked.x[-1, :6].tolist() == [2, 16, 4, 1, 0, 0]
    assert data.reading.dropped == {"next word is an unknown one": 2}  # not, bad


def told(data: Data, row: int) -> str:
    assert data.vocabulary is not None
    names = ["", *data.vocabulary]
    words = " ".join(names[token] for token in data.train.x[row].tolist() if token)
    return f"{words} → {names[int(data.train.y[row]) + 2]}"


def test_rare_words_of_reddit_are_unknown_and_no_class(tmp_path: Path) -> None:
    redditors(tmp_path)
    data: Data = build("datasets", "reddit", {"words": 4}).load(tmp_path)
    assert data.classes == 3 and int(data.train.x.max()) == 4
    assert data.train.y.bincount().tolist() == [0, 3, 3]  # nothing is before the first word
    whole: Data = build("datasets", "reddit", {}).load(tmp_path)
    assert data.reading is not None and whole.reading is not None
    assert data.reading.rows == whole.reading.rows


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ({"x": [[["a"] * 10]], "y": ["b"]}, "user 'A': a label is no object with target_tokens"),
        ({"x": [[["a"] * 10]], "y": [{}]}, "user 'A': it has no 'target_tokens'"),
        ({"x": [["a"] * 10], "y": [{"target_tokens": []}]}, "no list of pieces of 10 words"),
        ({"x": [[["a"] * 9]], "y": [{"target_tokens": []}]}, "no list of pieces of 10 words"),
        ({"x": [[["a"] * 10]], "y": [{"target_tokens": []}]}, "of 1 pieces has 0 targets"),
    ],
)
def test_comments_of_another_form_are_refused(
    samples: dict[str, list[Any]], words: str, tmp_path: Path
) -> None:
    write(tmp_path, "reddit", "train", {"A": samples})
    write(tmp_path, "reddit", "test", {"A": comments("a b")})
    with pytest.raises(BadInput, match=words):
        build("datasets", "reddit", {}).load(tmp_path)


def test_more_comments_than_a_user_of_reddit_has_are_refused(tmp_path: Path) -> None:
    redditors(tmp_path, counted=1)
    with pytest.raises(BadInput, match="2 inputs, 2 labels and num_samples 1"):
        build("datasets", "reddit", {}).load(tmp_path)
    with pytest.raises(BadInput, match="reddit/data/train is missing; get LEAF's preprocessed"):
        build("datasets", "reddit", {}).load(tmp_path / "elsewhere")


def test_a_phrase_wants_its_next_word_on_reddit(tmp_path: Path) -> None:
    texts = ["pasta from astoria is good", "it is what it is", "good pasta is good"]
    for part, count in (("train", 8), ("test", 3)):
        write(tmp_path, "reddit", part, {f"{at}": comments(*texts * count) for at in range(4)})
    spec = Spec(
        dataset=Part("reddit"),
        model=Part("lstm", {"words": 20, "dim": 8, "hidden": 16, "layers": 1}),
        attack=to_chain("phrase(words=astoria-is, place=end, target=3)", "attack"),
        clients=4,
        per_round=4,
        malicious=0.25,
        alpha="natural",
        rounds=5,
        batch=16,
        root_size=0,
        optimizer=Part("adam", {"lr": 0.03}),
    )
    figures = final(list(run(spec, folder=tmp_path, device="cpu")))
    assert figures["final/diverged"] == 0
    assert figures["final/clean_accuracy"] > 0.7
    assert figures["final/clean_accuracy"] < 1  # "it is" goes on in two ways


def changed(**changes: Any) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> object:
        return {**document, **changes}

    return change


def first_user(**samples: Any) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> object:
        name = document["users"][0]
        user = {**document["user_data"][name], **samples}
        return {**document, "user_data": {**document["user_data"], name: user}}

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document: [], "it has no 'users'"),
        (lambda document: {"users": []}, "it has no 'num_samples'"),
        (changed(users="f1"), "users are a list of names"),
        (changed(num_samples=[1]), "2 users and 1 num_samples"),
        (changed(users=["f1", "f7"]), "its users are not those of its user_data: f"),
        (changed(users=["f1", "f1"]), "its users are not those of its user_data: f0"),
        (changed(num_samples=[3, 1]), "user 'f0': 0 inputs, 0 labels and num_samples 1"),
        (first_user(y=[1, 2]), "user 'f1': 3 inputs, 2 labels and num_samples 3"),
        (first_user(x="abc"), "user 'f1': no list of inputs"),
        (first_user(y=[0, 3, 62]), "user 'f1': label 62 is not one of 0 to 61"),
        (first_user(y=[0, 3, True]), "label True is not"),
        (first_user(x=[[0.5] * 783] * 3), "an image has 783 values"),
        (first_user(x=[[0.5] * 784] * 3), "multiples of 1/255"),
        (first_user(x=[[1.5] * 784] * 3), r"gray values lie in \[0, 1\]"),
        (first_user(x=[[float("nan")] * 784] * 3), r"gray values lie in \[0, 1\]"),
        (first_user(x=[["a"] * 784] * 3), "user 'f1': could not convert"),
        (first_user(x=[[1.0], [1.0, 1.0], [1.0]]), "user 'f1'"),
    ],
)
def test_files_of_another_form_are_refused(
    change: Callable[[dict[str, Any]], object], words: str, tmp_path: Path
) -> None:
    writers(tmp_path)
    place = tmp_path / "femnist/data/train/all_data_1_niid.json"
    place.write_text(json.dumps(change(json.loads(place.read_text()))))
    with pytest.raises(BadInput, match=words) as caught:
        build("datasets", "femnist", {}).load(tmp_path)
    assert str(place) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "JSONDecodeError"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_files_that_are_no_json(content: str, words: str, tmp_path: Path) -> None:
    writers(tmp_path)
    (tmp_path / "femnist/data/train/all_data_1_niid.json").write_text(content)
    with pytest.raises(BadInput, match=words):
        build("datasets", "femnist", {}).load(tmp_path)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ({"x": ["a" * 81], "y": ["b"]}, "no text of 1 to 80 characters"),
        ({"x": [""], "y": ["b"]}, "no text of 1 to 80 characters"),
        ({"x": [3], "y": ["b"]}, "no text of 1 to 80 characters: 3"),
        ({"x": ["a"], "y": ["bc"]}, "a label is no character: 'bc'"),
        ({"x": ["a"], "y": [7]}, "a label is no character: 7"),
    ],
)
def test_roles_of_another_form_are_refused(
    samples: dict[str, list[Any]], words: str, tmp_path: Path
) -> None:
    write(tmp_path, "shakespeare", "train", {"A": samples})
    write(tmp_path, "shakespeare", "test", {"A": role(LINE, 3)})
    with pytest.raises(BadInput, match=words):
        build("datasets", "shakespeare", {}).load(tmp_path)


def test_a_user_of_two_files_and_empty_parts_are_refused(tmp_path: Path) -> None:
    train = write(tmp_path, "femnist", "train", {"f1": writer(0)}, {"f1": writer(1)})
    test = write(tmp_path, "femnist", "test", {"f1": writer()})
    load = build("datasets", "femnist", {}).load
    with pytest.raises(BadInput, match=r"has user 'f1', whom all_data_0_niid.json has too"):
        load(tmp_path)
    (train / "all_data_1_niid.json").unlink()
    with pytest.raises(BadInput, match="its test part has no samples"):
        load(tmp_path)
    (test / "all_data_0_niid.json").unlink()
    with pytest.raises(BadInput, match=r"test has no .json files; make it by LEAF's"):
        load(tmp_path)
    with pytest.raises(BadInput, match=r"femnist/data/train is missing; make it by LEAF's"):
        load(tmp_path / "elsewhere")


def test_backstop_data_shows_the_writers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writers(tmp_path)
    assert cli.main(["data", "femnist", "--data-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "2 clients (natural), 5 samples to train on" in out
    assert "f1" in out and "1 of them" not in out


def test_a_federation_of_writers_and_one_of_roles(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    parts = {
        part: {f"w{at}": writer(*draws.integers(0, 3, size).tolist()) for at in range(6)}
        for part, size in (("train", 24), ("test", 6))
    }
    for part, users in parts.items():
        write(tmp_path, "femnist", part, users)
    roles(tmp_path)
    base = Spec(
        clients=6,
        per_round=6,
        malicious=0.5,
        alpha="natural",
        rounds=4,
        batch=8,
        root_size=0,
        optimizer=Part("sgd", {"lr": 0.1, "momentum": 0.9}),
    )
    images = base.replace(dataset=Part("femnist"), attack=to_chain("badnets(share=0.5)", "attack"))
    figures = final(list(run(images, folder=tmp_path, device="cpu")))
    assert figures["final/clean_accuracy"] > 0.9  # three dots
    experiment = Experiment(images, tmp_path, "cpu")
    triggered = experiment.probe().triggered
    assert triggered is not None
    assert not torch.equal(triggered.x.float(), experiment.built.data.test.x.float() / 255)
    text = base.replace(
        dataset=Part("shakespeare"),
        model=Part("lstm", {"words": 81, "dim": 4, "hidden": 8, "layers": 1}),
        clients=2,
        per_round=2,
        rounds=1,
        attack=to_chain("phrase(words=q-q-q, place=end, target=5)", "attack"),
    )
    told = final(list(run(text, folder=tmp_path, device="cpu")))
    assert told["final/diverged"] == 0 and told["final/test_samples"] == 12


def test_their_networks_have_leafs_sizes() -> None:
    net = build("models", "lstm", {"words": 81, "dim": 8, "hidden": 256, "layers": 2})((80,), 80)
    layers = 4 * 256 * (8 + 256 + 2) + 4 * 256 * (256 + 256 + 2)
    assert sum(p.numel() for p in net.parameters()) == 82 * 8 + layers + 80 * 257
    assert femnist_file.SIDE == 28 and len(femnist_file.CLASSES) == 62
