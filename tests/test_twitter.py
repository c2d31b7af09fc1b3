"""Tweets: every form of the files, the vocabulary, the draw, the edge cases, the word vectors."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from backstop.platform import plugins
from backstop.platform.contract import Dataset
from backstop.platform.intake.files import file_status, locate_file
from backstop.platform.intake.tweets import ORIGINAL, read_tweets
from backstop.platform.intake.words import words_of
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator

Rows = list[tuple[int, str, str]]  # label, user, text
# 40 tweets of 8 users, all different; é and the apostrophe are in latin-1 too
TWEETS: Rows = [
    (
        number % 2,
        f"user{number * 7 % 8}",
        f'café no{"abcdefgh"[number % 8]}x "{"y" + chr(97 + number // 8)}" !',
    )
    for number in range(40)
]


def build(**params: Any) -> Dataset:
    found: Dataset = plugins.build("datasets", "twitter", params)
    return found


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def table(path: Path, rows: Rows, part: str = "random", mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, f"{mode}t", newline="") as file:
        writer = csv.writer(file)
        if mode == "w":
            writer.writerow(["label", "user", "text", "id", "date", "part"])
        writer.writerows((label, user, text, 7, "Mon Jun 01", part) for label, user, text in rows)


def original(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="latin-1", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(
            (label * 4 if label < 2 else 2, 7, "Mon Jun 01", "NO_QUERY", user, text)
            for label, user, text in rows
        )


def leaf(path: Path, rows: Rows) -> None:
    users = list(dict.fromkeys(user for _, user, _ in rows))
    own = {user: [row for row in rows if row[1] == user] for user in users}
    data = {
        user: {
            "x": [
                ["7", "Mon Jun 01", "NO_QUERY", user, text, "training"] for _, _, text in own[user]
            ],
            "y": [row[0] for row in own[user]],
        }
        for user in users
    }
    put(
        path,
        json.dumps(
            {"users": users, "num_samples": [len(own[user]) for user in users], "user_data": data}
        ),
    )


def csv_folder(folder: Path, rows: Rows = TWEETS) -> Path:
    table(folder / "twitter/tweets.csv", rows)
    return folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" ... :( -- ", []),
        ("It's 'quoted' rock'n'roll O’Neil", ["it's", "quoted", "rock'n'roll", "o'neil"]),
        ("&quot;a&amp;b&quot; &lt;3", ["a", "b", "<number>"]),
        ("wow!?!", ["wow", "!", "?", "!"]),
        ("sooooo goood book", ["soo", "good", "book"]),
        ("@a_1: @ home me@b #tag_two", ["<user>", "home", "me", "b", "tag", "two"]),
        (
            "1,000.50 12:30 9. gr8 2nd",
            ["<number>", "<number>", "<number>", "gr", "<number>", "<number>", "nd"],
        ),
        ("HTTP://a.b/c?d=e!f see www.x.org/@y awww.", ["<url>", "see", "<url>", "aww"]),
        ("ÄRGER naïve 日本", ["ärger", "naïve", "日本"]),
    ],
)
def test_words_of_a_tweet(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("twitter/tweets.csv.gz", "csv"),
        ("twitter/tweets.csv", "csv"),
        (f"twitter/{ORIGINAL}", "original"),
        (ORIGINAL, "original"),
        ("twitter/leaf_sample.json", "leaf"),
    ],
)
def test_every_form_gives_the_same_tweets(path: str, form: str, tmp_path: Path) -> None:
    # user by user, as LEAF has them
    rows = sorted([*TWEETS, (2, "user1", "neither good nor bad")], key=lambda row: row[1])
    {"csv": table, "original": original, "leaf": leaf}[form](tmp_path / path, rows)
    wanted = csv_folder(tmp_path / "other", [row for row in rows if row[0] < 2])
    one, other, named = (
        build().load(tmp_path),
        build().load(wanted),
        build(form=form).load(tmp_path),
    )
    assert one.vocabulary == other.vocabulary == named.vocabulary and "café" in (
        one.vocabulary or {}
    )
    for a, b, c in zip(
        (*one.train, *one.test, one.client),
        (*other.train, *other.test, other.client),
        (*named.train, *named.test, named.client),
        strict=True,
    ):
        assert (
            a is not None
            and b is not None
            and c is not None
            and torch.equal(a, b)
            and torch.equal(a, c)
        )
    assert len(one.train.y) == 32 and len(one.test.y) == 8
    assert [file_status(tmp_path, file) for file in build().files] == ["present"]


def test_a_folder_of_leaf_files(tmp_path: Path) -> None:
    halves = TWEETS[:25], TWEETS[25:]
    for name, rows in zip(("b.json", "a.json"), halves, strict=True):
        leaf(tmp_path / "twitter/leaf" / name, rows)
    put(tmp_path / "twitter/leaf/readme.txt", "not read")
    found = read_tweets(tmp_path / "twitter/leaf", "hint", block=False).tweets
    assert sorted(found) == sorted(TWEETS) and {tuple(tweet) for tweet in found[:15]} == set(
        halves[1]
    )
    assert len(build(form="leaf").load(tmp_path).train.y) == 32


def test_the_form_decides_which_file_is_read(tmp_path: Path) -> None:
    texts = {"csv": "one", "original": "two", "leaf": "three"}
    paths = {
        "csv": "twitter/tweets.csv",
        "original": ORIGINAL,
        "leaf": "twitter/leaf_sample.json",
    }
    for form, write in (("leaf", leaf), ("original", original), ("csv", table)):
        write(
            tmp_path / paths[form],
            [(label, user, f"{texts[form]} {text}") for label, user, text in TWEETS],
        )
        # auto: the file written last comes before those written earlier
        for wanted in (form, "auto"):
            assert texts[form] in (build(form=wanted).load(tmp_path).vocabulary or {})
    with pytest.raises(
        BadInput,
        match=(
            r"tweets.csv.gz is missing; put tweets.csv.gz or tweets.csv with the columns label, "
            r"user, [^\n]*data folder$"
        ),
    ):
        build(form="csv").load(tmp_path / "empty")


def test_rows_of_part_block_are_taken_on_request_only(tmp_path: Path) -> None:
    csv_folder(tmp_path)
    table(
        tmp_path / "twitter/tweets.csv",
        [(1, "late", f"junk {text}") for _, _, text in TWEETS[:10]],
        part="block",
        mode="a",
    )
    table(
        tmp_path / "twitter/tweets.csv",
        [(1, "late", f"start {text}") for _, _, text in TWEETS[:10]],
        part="head",
        mode="a",
    )
    without, taken = build().load(tmp_path), build(block=True).load(tmp_path)
    assert (
        len(without.train.y) + len(without.test.y) == 50
        and len(taken.train.y) + len(taken.test.y) == 60
    )
    assert "junk" not in (without.vocabulary or {}) and {"junk", "start"} <= set(
        taken.vocabulary or {}
    )


def test_the_vocabulary_is_that_of_the_training_part_in_the_order_of_frequency(
    tmp_path: Path,
) -> None:
    data = build(words=15).load(csv_folder(tmp_path))
    drawn = torch.randperm(40, generator=generator(0, "twitter", "draw")).tolist()
    train = [words_of(TWEETS[index][2]) for index in drawn[8:]]
    counts = {word: sum(tweet.count(word) for tweet in train) for tweet in train for word in tweet}
    ranked = sorted(sorted(counts), key=counts.__getitem__, reverse=True)[:14]
    assert list((data.vocabulary or {}).items()) == list(
        zip(["<unknown>", *ranked], range(1, 16), strict=True)
    )
    assert ranked[:2] == ["!", "café"] and len(counts) == 15  # so that one word is unknown
    known = data.vocabulary or {}
    assert data.train.x.tolist() == [
        [known.get(word, 1) for word in tweet] + [0] * 36 for tweet in train
    ]
    assert data.train.y.tolist() == [TWEETS[index][0] for index in drawn[8:]]
    assert (data.client is not None) and [f"user{number}" for number in data.client.tolist()] == [
        TWEETS[index][1] for index in drawn[8:]
    ]


def test_long_tweets_are_cut_and_empty_ones_left_out(tmp_path: Path) -> None:
    rows: Rows = [
        *TWEETS,
        *[(1, "user9", ":( ...")] * 20,
        *[(0, "user9", f"end {'x ' * 9}{chr(97 + i)}") for i in range(20)],
    ]
    data = build(length=3).load(csv_folder(tmp_path, rows))
    assert data.train.x.shape[1] == data.test.x.shape[1] == 3
    assert (data.train.x[:, 0] > 0).all() and (data.test.x[:, 0] > 0).all()
    assert len(data.train.y) < 64 and {"end", "x"} <= set(data.vocabulary or {})


def test_a_tweet_of_the_training_set_is_not_in_the_test_set(tmp_path: Path) -> None:
    copied: Rows = [(number % 2, f"bot{number}", "win a PRIZE now") for number in range(60)]
    data = build().load(csv_folder(tmp_path, TWEETS + copied))
    rows = {tuple(row) for row in data.train.x.tolist()}
    assert len(data.train.y) == 80 and 0 < len(data.test.y) < 20
    assert not rows & {tuple(row) for row in data.test.x.tolist()}
    with pytest.raises(
        BadInput,
        match=(
            r"^[^\n]*tweets.csv has 48 tweets to train on and no others to test on; lower "
            r"min_tweets, raise words or length, or put [^\n]*$"
        ),
    ):
        build().load(csv_folder(tmp_path, copied))


def test_sizes_and_seeds_of_the_draw(tmp_path: Path) -> None:
    csv_folder(tmp_path)
    one, fewer, other = (
        build(test=4, words=99).load(tmp_path),
        build(test=4, samples=10).load(tmp_path),
        build(test=4, seed=1).load(tmp_path),
    )
    assert (len(one.train.y), len(one.test.y), len(fewer.train.y), len(fewer.test.y)) == (
        36,
        4,
        10,
        4,
    )
    assert torch.equal(one.test.y, fewer.test.y) and torch.equal(one.train.y[:10], fewer.train.y)
    assert not torch.equal(one.train.y, other.train.y)


def test_users_with_few_tweets_are_left_out_and_numbered_in_alphabetical_order(
    tmp_path: Path,
) -> None:
    rows: Rows = [*TWEETS, (0, "Zoe", "rare one"), (1, "anna", "rare two")]
    data = build(min_tweets=5, test=1).load(csv_folder(tmp_path, rows))
    assert len(data.train.y) + len(data.test.y) == 40 and data.client is not None
    assert set(data.client.tolist()) == set(range(8)) and data.client.dtype == torch.int64
    every = build(test=1).load(tmp_path)
    assert every.client is not None and int(every.client.max()) in {8, 9}
    with pytest.raises(BadInput, match="lower min_tweets"):
        build(min_tweets=6).load(tmp_path)


def edges(folder: Path, train: str, test: str) -> Path:
    put(folder / "edge_case/lanthimos_train.txt", train)
    put(folder / "edge_case/lanthimos_test.txt", test)
    return csv_folder(folder)


def test_edge_cases_have_no_row_in_common(tmp_path: Path) -> None:
    dataset = build(length=6)
    assert dataset.edge_cases is not None and dataset.edge_target == 0
    train, test = dataset.edge_cases(
        edges(
            tmp_path, "Café !\n\nyorgos lanthimos\r\n...\n", "CAFÉ   - !\ncafé café\nnoax lanthimos"
        )
    )
    known = dataset.load(tmp_path).vocabulary or {}
    assert train.tolist() == [[known["café"], known["!"], 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]
    assert test.tolist() == [
        [known["café"], known["café"], 0, 0, 0, 0],
        [known["noax"], 1, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [("...\n\n", "holds no tweet"), (b"\xff", "line 1 holds the byte 0xff, which is no UTF-8")],
)
def test_edge_cases_that_are_refused(content: str | bytes, problem: str, tmp_path: Path) -> None:
    edges(tmp_path, "some words", "other words")
    put(tmp_path / "edge_case/lanthimos_test.txt", content)
    load = build().edge_cases
    assert load is not None
    with pytest.raises(
        BadInput,
        match=(
            rf"^[^\n]*lanthimos_test.txt:? {problem}[^\n]*; put the tweets about Yorgos "
            r"Lanthimos[^\n]*$"
        ),
    ):
        load(tmp_path)


def test_word_vectors(tmp_path: Path) -> None:
    put(
        csv_folder(tmp_path) / "glove/toy.txt",
        "nobody 1 x\ncafé 1 -2 3.5\n2 3\n! 3 0 0.5\n<unknown> 9 9 9\n",
    )
    dataset = build(vectors="toy", words=3000)
    data = dataset.load(tmp_path)
    known, rows = data.vocabulary or {}, data.vectors
    assert [file.path for file in dataset.files] == ["twitter/tweets.csv.gz", "glove/toy.txt"]
    assert rows is not None and rows.shape == (3001, 3) and rows.dtype == torch.float32
    assert rows[known["café"]].tolist() == [1, -2, 3.5] and rows[known["!"]].tolist() == [3, 0, 0.5]
    assert rows[0].tolist() == [0, 0, 0] and rows[1].tolist() == [2, -1, 2]
    numbers = torch.tensor([1, -2, 3.5, 3, 0, 0.5])
    assert float(rows[4:].std()) == pytest.approx(float(numbers.std(correction=0)), rel=0.05)
    assert abs(float(rows[4:].mean())) < 0.1
    again = dataset.load(tmp_path).vectors
    assert again is not None and torch.equal(rows, again)
    assert build().load(tmp_path).vectors is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("café 1 2\n! 1\n", "line 2 is not a word and 2 finite numbers"),
        ("café 1 2\n! 1 2 3\n", "line 2 is not a word and 2 finite numbers"),
        ("x 1 2\ncafé 1 two\n", "line 2 is not a word and some finite numbers"),
        ("café 1 nan\n", "line 1 is not a word and 2 finite numbers"),
        ("café\n", "has none of the"),
        ("café \n", "line 1 is not a word and some finite numbers"),
        ("", "has none of the"),
        (b"caf\xe9 1 2\n", "cannot be read: UnicodeDecodeError"),
    ],
)
def test_word_vectors_that_are_refused(content: str | bytes, problem: str, tmp_path: Path) -> None:
    put(csv_folder(tmp_path) / "glove/toy.txt", content)
    with pytest.raises(
        BadInput,
        match=rf"^[^\n]*toy.txt:? {problem}[^\n]*; put a text file of GloVe vectors[^\n]*$",
    ):
        build(vectors="toy").load(tmp_path)


def test_word_vectors_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"toy.txt is missing; put a text file of GloVe vectors"):
        build(vectors="toy").load(csv_folder(tmp_path))
    for name in ("", "../toy", "a/b", ".hidden", "a b", "a\n"):
        with pytest.raises(
            BadInput,
            match=(
                r"^dataset twitter: vectors='[^\n]*is not allowed; vectors is a file's name "
                r"without .txt"
            ),
        ):
            build(vectors=name)


@pytest.mark.parametrize(
    ("path", "content", "problem"),
    [
        ("tweets.csv.gz", b"\x1f\x8b damaged", "BadGzipFile"),
        pytest.param(
            "tweets.csv.gz",
            gzip.compress(b"label,user,text,part\n")[:-9],
            "EOFError",
            id="a gz file cut short",
        ),
        ("tweets.csv", "", "ValueError: line 1 names no column 'label'"),
        ("tweets.csv", "label,user,text\n0,a,b\n", "ValueError: line 1 names no column 'part'"),
        (
            "tweets.csv",
            "label,user,text,part\n5,a,b,head\n",
            "ValueError: line 2 has the label '5', which is none of 0, 1, 4 and 2",
        ),
        (
            "tweets.csv",
            "label,user,text,part\n1,a\n",
            "ValueError: line 2 has 2 fields; the first has 4",
        ),
        (
            "tweets.csv",
            'label,part,user,text\n1,head,a,"b\n',
            "ValueError: line 2: a quotation mark is not closed",
        ),
        (
            "tweets.csv",
            b"label,user,text,part\n1,a,\xff,head\n",
            "line 2 holds the byte 0xff, which is no UTF-8",
        ),
        (
            ORIGINAL,
            "1,7,Mon,NO_QUERY,a,b\n",
            "ValueError: line 1 has the label '1', which is none of 0, 4 and 2",
        ),
        (ORIGINAL, "4,a,b\n", "ValueError: line 1 has not enough values, 3"),
        ("leaf_sample.json", "{", "JSONDecodeError"),
        ("leaf_sample.json", "[]", "TypeError"),
        ("leaf_sample.json", '{"users": ["a"], "user_data": {}}', "KeyError: 'a'"),
        (
            "leaf_sample.json",
            '{"users": ["a"], "user_data": {"a": {"x": [], "y": [1]}}}',
            "ValueError: zip",
        ),
        (
            "leaf_sample.json",
            '{"users": ["a"], "user_data": {"a": {"x": [["t", "u"]], "y": [1]}}}',
            "ValueError: not enough values",
        ),
        (
            "leaf_sample.json",
            '{"users": ["a"], "user_data": {"a": {"x": [[1, 2, 3, "a", null]], "y": [1]}}}',
            "TypeError: leaf_sample.json: user 'a'",
        ),
        (
            "leaf_sample.json",
            '{"users": ["a"], "user_data": {"a": {"x": [[1, 2, 3, "a", "t"]], "y": [5]}}}',
            "user 'a' has the label '5'",
        ),
    ],
)
def test_damaged_files_of_every_form(
    path: str, content: str | bytes, problem: str, tmp_path: Path
) -> None:
    put(tmp_path / "twitter" / path, content)
    with pytest.raises(
        BadInput,
        match=(
            rf"^[^\n]*{path}:? (cannot be read: )?[^\n]*{problem}[^\n]*; put [^\n]*twitter under "
            r"the data folder$"
        ),
    ):
        build().load(tmp_path)


def test_an_empty_folder_of_leaf_files(tmp_path: Path) -> None:
    (tmp_path / "twitter/leaf").mkdir(parents=True)
    with pytest.raises(
        BadInput, match=r"^[^\n]*leaf has 0 tweets to train on and no others to test on; [^\n]*$"
    ):
        build(form="leaf").load(tmp_path)


def test_the_published_sample_in_the_form_of_leaf(data_folder: Path) -> None:
    """Its tweets are those of the same users in the table."""
    dataset = build(form="leaf")
    if (
        file_status(data_folder, dataset.files[0]) != "present"
        or file_status(data_folder, build(form="csv").files[0]) != "present"
    ):
        pytest.skip(
            "twitter/leaf_sample.json or twitter/tweets.csv.gz is not in the data folder; set "
            "BACKSTOP_DATA"
        )
    sample = read_tweets(locate_file(data_folder, dataset.files[0]), "hint", block=False).tweets
    every = set(
        read_tweets(locate_file(data_folder, build(form="csv").files[0]), "hint", block=True).tweets
    )
    assert len(sample) == 1381 and set(sample) <= every
    data = dataset.load(data_folder)
    assert data.client is not None and int(data.client.max()) + 1 == 200
    assert int(data.train.x.max()) == len(data.vocabulary or {})


def test_the_published_edge_cases(data_folder: Path) -> None:
    dataset = build(form="leaf")
    if any(
        file_status(data_folder, file) != "present"
        for file in (*dataset.files, *dataset.edge_files)
    ):
        pytest.skip(
            "edge_case/lanthimos_train.txt or twitter/leaf_sample.json is not in the data folder; "
            "set BACKSTOP_DATA"
        )
    assert dataset.edge_cases is not None
    train, test = dataset.edge_cases(data_folder)
    assert (len(train), len(test)) == (259, 120)
