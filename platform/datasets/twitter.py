"""Sentiment140: tweets of spring 2009 labelled by their smiley, with tweets about Yorgos Lanthimos
as edge cases.

x are token ids: 0 pads on the right, 1 is every unknown word, 2 … ``words`` are the most frequent
words of the training part, the most frequent first and ties in alphabetical order. Classes: 0
negative, 1 positive; the smileys that decided are not in the published text.

A tweet becomes words as follows. HTML entities are undone, letters put in lower case, and a letter
repeated three or more times is kept twice. Then an address is ``<url>``, a mention ``<user>``, a
number ``<number>``; a word is letters with inner apostrophes; ! and ? stand for themselves.
Everything else separates, so that ``#tag`` is ``tag``. Tweets without a word are left out.

Shapes: train (at most ``samples``, length), test (at most ``test``, length) and edge cases (259,
length) and (120, length), int64; vectors, where asked for, (words + 1, dim) float32. ``client``
numbers the users of the training tweets in alphabetical order.

Source: A. Go, R. Bhayani, L. Huang, "Twitter Sentiment Classification using Distant Supervision",
Stanford, 2009. As users' own data: S. Caldas et al., "LEAF: A Benchmark for Federated Settings",
2018. Edge cases: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S. Agarwal, J. Sohn, K. Lee,
D. Papailiopoulos, "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS
2020: tweets about the director, labelled negative. Word vectors: J. Pennington, R. Socher, C. D.
Manning, "GloVe: Global Vectors for Word Representation", EMNLP 2014.

Deviations: the authors' 359 tweets labelled by hand are not the test set: ``test`` tweets, at most
a fifth, are drawn from the file before the training tweets are. Copied tweets and those of bots are
common, so a test tweet whose row of ids also stands in the training set is left out: the test set
is some 2 % smaller than drawn and lacks the most common short tweets. A user's tweets may be in
both parts. Edge cases for testing whose row stands among those for training are left out as well,
since an attack that remembers its training tweets would be credited for them; of the published ones
that is none. The edge cases were written about ten years after the tweets, so that a fifth of their
words, the director's name among them, are unknown ones. Neutral tweets (polarity 2) are left out.
``min_tweets`` counts a user's tweets in the file, of which the training set holds those that are
drawn. Rows of ``vectors`` whose word the file of vectors lacks are drawn, normal with mean 0 and
the standard deviation of the numbers found; the unknown word has the mean of the vectors found,
padding has zeros.

A label is 0 or 1, or 0 or 4 as in the original, 4.0 is 4; blank lines and a header line of the
original form mean nothing. The original form is latin-1 unless all its bytes are UTF-8. Where its
tweets are not enclosed in quotation marks every line is taken by itself, its first five commas
separating. LEAF's samples are lists of which the fifth field is the text, or the text alone; files
of a folder that repeat each other are refused.

Files: in the folder ``twitter``, ``form`` csv: ``tweets.csv.gz`` or ``tweets.csv`` (label, user,
text, id, date, part; of the rows of part ``block`` the date gives away the label, so they are taken
only if ``block`` says so); original: ``training.1600000.processed.noemoticon.csv`` (also beside the
folder); leaf: ``leaf_sample.json`` or every json file of the folder ``leaf``. With ``form=auto`` it
is the first of these that is there, and the id of a spec does not tell which: a leaderboard meant
for others should name the form. Edge cases: ``lanthimos_train.txt`` and ``lanthimos_test.txt`` in
the folder ``edge_case``, a tweet per line. Vectors: ``glove/<vectors>.txt``, a word and its numbers
per line.

Checked: against files in the published forms and in those of public reports (LEAF #55), with
made-up tweets.

Example:
>>> twitter(form="leaf").files[0].path, twitter().edge_target
('twitter/leaf_sample.json', 0)
>>> _words("@anna soooo happy!! #sunday &lt;3 http://t.co/x don't you agree?")
['<user>', 'soo', 'happy', '!', '!', 'sunday', '<number>', '<url>', "don't", 'you', 'agree', '?']
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, File, Reading, Samples
from backstop.platform.intake.checks import checked
from backstop.platform.intake.files import csv_records, locate_file, naming_file, read_text
from backstop.platform.intake.tables import repeats
from backstop.platform.params import BadInput, Range, nearest
from backstop.platform.seeds import generator

VERSION = 2
KINDS = ("text",)
NEGATIVE = 0
UNKNOWN = "<unknown>"
CLASSES = ("negative", "positive")
LABELS = {"0": 0, "1": 1, "4": 1}  # 4 as in the original
POLARITIES = {"0": 0, "4": 1}
NEUTRAL = "2"
ORIGINAL_FIELDS = 6  # polarity, id, date, query, user, text
ORIGINAL = "training.1600000.processed.noemoticon.csv"
WHAT = {
    "csv": "tweets.csv.gz or tweets.csv with the columns label, user, text, id, date, part",
    "original": f"{ORIGINAL} of Sentiment140",
    "leaf": "LEAF's sent140 as leaf_sample.json or a folder leaf of json files",
}
PATHS: dict[str, tuple[str, ...]] = {
    "csv": ("twitter/tweets.csv.gz", "twitter/tweets.csv"),
    "original": (f"twitter/{ORIGINAL}", ORIGINAL),
    "leaf": ("twitter/leaf_sample.json", "twitter/leaf"),
}
WHAT["auto"] = ", or ".join(WHAT.values())
PATHS["auto"] = tuple(chain.from_iterable(PATHS.values()))
EDGE_HINT = "put the tweets about Yorgos Lanthimos of Wang et al. 2020, one per line, into edge_case under the data folder"
EDGE_FILES = tuple(
    File(f"edge_case/lanthimos_{part}.txt", None, EDGE_HINT) for part in ("train", "test")
)
VECTORS_HINT = "put a text file of GloVe vectors, a word and its numbers per line, into glove under the data folder"
REPEATED = re.compile(r"(\w)\1\1+")  # digits too, which changes no word
# ww. was www.
TOKEN = re.compile(
    r"(https?://\S+|ww\.\S+)|((?<!\w)@\w+)|(\d+(?:[.,:]\d+)*)|[^\W\d_]+(?:'[^\W\d_]+)*|[!?]"
)
NAMES = ("", "<url>", "<user>", "<number>")  # of the groups


class _Tweet(NamedTuple):
    label: int
    user: str
    text: str


class _Found(NamedTuple):
    """The tweets of a file, how many were left out and why, and what is to be said of them."""

    tweets: list[_Tweet]
    left: Counter[str]
    notes: tuple[str, ...] = ()


class _Drawn(NamedTuple):
    """The tweets of the two parts, each as its first words and never empty, and the vocabulary."""

    train: list[tuple[_Tweet, list[str]]]
    test: list[tuple[_Tweet, list[str]]]
    vocabulary: dict[str, int]
    source: Path
    found: _Found
    left: dict[str, int]  # reason → tweets that are in neither part


def twitter(
    *,
    form: Annotated[
        Literal["auto", "csv", "original", "leaf"],
        "the files to read; auto: the first that is there",
    ] = "auto",
    words: Annotated[
        int, Range(2, 10**6), "words in the vocabulary, the unknown one included"
    ] = 10000,
    length: Annotated[int, Range(1, 1000), "words kept of a tweet"] = 40,
    samples: Annotated[int, Range(1, 10**7), "train tweets at most"] = 50000,
    test: Annotated[
        int, Range(1, 10**7), "tweets held out for testing, at most a fifth of all"
    ] = 5000,
    block: Annotated[
        bool, "of form csv: also the rows of part block, whose date gives away the label"
    ] = False,
    min_tweets: Annotated[
        int, Range(1, 10**4), "users with fewer tweets in the file are left out"
    ] = 1,
    vectors: Annotated[
        str | None, "name of a file of word vectors, e.g. glove.6B.300d; none: no vectors"
    ] = None,
    seed: Annotated[
        int, Range(0, 2**31 - 1), "names the draws; not the seed of the experiment"
    ] = 0,
) -> Dataset:
    """Sentiment140 as a dataset. Raises BadInput where ``vectors`` is no file's name."""
    if vectors is not None and not re.fullmatch(r"\w[\w.-]*", vectors):
        raise BadInput(
            f"dataset twitter: vectors={vectors!r} is not allowed; vectors is a file's name without .txt, e.g. glove.6B.300d"
        )
    hint = f"put {WHAT[form]} into twitter under the data folder"
    first, *others = PATHS[form]
    source = File(first, None, hint, instead=tuple(File(path, None, hint) for path in others))
    embedding = None if vectors is None else File(f"glove/{vectors}.txt", None, VECTORS_HINT)

    def draw(folder: Path) -> _Drawn:
        """The test tweets first, so that another number of train tweets leaves them as they are."""
        path = locate_file(folder, source)
        read = _read(path, hint, block=block)
        counts = Counter(tweet.user for tweet in read.tweets)
        tweets = [tweet for tweet in read.tweets if counts[tweet.user] >= min_tweets]
        held_out = min(test, len(tweets) // 5)
        order = torch.randperm(len(tweets), generator=generator(seed, "twitter", "draw"))[
            : held_out + samples
        ].tolist()
        found = [(tweets[index], _words(tweets[index].text)[:length]) for index in order]
        parts = [
            [item for item in part if item[1]] for part in (found[:held_out], found[held_out:])
        ]
        left = {
            **read.left,
            f"of users with fewer than {min_tweets}": len(read.tweets) - len(tweets),
            "not drawn": len(tweets) - len(order),
            "without a word": len(found) - len(parts[0]) - len(parts[1]),
        }
        return _Drawn(
            parts[1], parts[0], _vocabulary((kept for _, kept in parts[1]), words), path, read, left
        )

    def load(folder: Path) -> Data:
        drawn = draw(folder)
        known = drawn.vocabulary
        train, held_out = (
            _ids((kept for _, kept in part), known, length) for part in (drawn.train, drawn.test)
        )
        seen = {row.tobytes() for row in train.numpy()}
        new = torch.tensor(
            [row.tobytes() not in seen for row in held_out.numpy()], dtype=torch.bool
        )
        if not new.any():
            raise BadInput(
                f"{drawn.source} has {len(train)} tweets to train on and no others to test on; lower min_tweets, raise words or length, or {hint}"
            )
        users = [tweet.user for tweet, _ in drawn.train]
        numbers = {user: number for number, user in enumerate(sorted(set(users)))}
        data = Data(
            train=Samples(train, _labels(drawn.train)),
            test=Samples(held_out[new], _labels(drawn.test)[new]),
            classes=2,
            kind="text",
            client=torch.tensor([numbers[user] for user in users], dtype=torch.int64),
            vocabulary=known,
            vectors=None
            if embedding is None
            else _vectors(locate_file(folder, embedding), known, words, seed),
        )
        left = {**drawn.left, "of the test part that the training part has too": int((~new).sum())}
        data = data._replace(reading=_reading(drawn, data, left, folder))
        return checked(data, "twitter")

    def edge_cases(folder: Path) -> tuple[Tensor, Tensor]:
        """Tweets about Lanthimos for training and for testing, without common rows."""
        lines = [_lines(locate_file(folder, file)) for file in EDGE_FILES]
        known = draw(folder).vocabulary
        train, held_out = (
            _ids((_words(line)[:length] for line in part), known, length) for part in lines
        )
        seen = {row.tobytes() for row in train.numpy()}
        return train, held_out[[row.tobytes() not in seen for row in held_out.numpy()]]

    return Dataset(
        load=load,
        files=(source,) if embedding is None else (source, embedding),
        edge_cases=edge_cases,
        edge_files=EDGE_FILES,
        edge_target=NEGATIVE,
    )


def _reading(drawn: _Drawn, data: Data, left: Mapping[str, int], folder: Path) -> Reading:
    """What is said at every load."""
    counts = (data.train.y.bincount(minlength=2) + data.test.y.bincount(minlength=2)).tolist()
    users = 0 if data.client is None else int(data.client.max()) + 1
    lacking = sorted(set(range(2)) - set(data.test.y.tolist()))
    source = (
        drawn.source.relative_to(folder) if drawn.source.is_relative_to(folder) else drawn.source
    )
    return Reading(
        source=source.as_posix(),
        rows=len(drawn.found.tweets) + drawn.found.left.total(),
        dropped={reason: count for reason, count in left.items() if count},
        classes=dict(zip(CLASSES, counts, strict=True)),
        train=len(data.train.y),
        test=len(data.test.y),
        copies=repeats(data.train.x, data.test.x)[0],
        form=f"{len(drawn.vocabulary)} words, {data.train.x.shape[1]} of a tweet at most, of {users} users",
        notes=(*drawn.found.notes, *(f"no test tweet is {CLASSES[label]}" for label in lacking)),
    )


def _words(text: str) -> list[str]:
    """The words of a tweet, as the data sheet says.

    >>> _words("LOOOL, it&#39;s 9.30 @ work... www.a.org me@b.net ÄRGER")
    ['lool', "it's", '<number>', 'work', '<url>', 'me', 'b', 'net', 'ärger']
    """
    plain = REPEATED.sub(r"\1\1", html.unescape(text).lower().replace("’", "'"))
    return [
        NAMES[match.lastindex] if match.lastindex else match[0] for match in TOKEN.finditer(plain)
    ]


def _vocabulary(tweets: Iterable[list[str]], words: int) -> dict[str, int]:
    counts = Counter(chain.from_iterable(tweets))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: number for number, word in enumerate([UNKNOWN, *ranked[: words - 1]], start=1)}


def _ids(tweets: Iterable[list[str]], vocabulary: Mapping[str, int], length: int) -> Tensor:
    """Token ids (N, length)."""
    rows = [[vocabulary.get(word, 1) for word in tweet] for tweet in tweets]
    sizes = np.array([len(row) for row in rows], np.int64)
    x = np.zeros((len(rows), length), np.int64)
    x[np.arange(length) < sizes[:, None]] = list(chain.from_iterable(rows))
    return torch.from_numpy(x)


def _labels(tweets: list[tuple[_Tweet, list[str]]]) -> Tensor:
    return torch.tensor([tweet.label for tweet, _ in tweets], dtype=torch.int64)


def _read(path: Path, hint: str, *, block: bool) -> _Found:
    """The labelled tweets of any form, in the order of the file."""
    with naming_file(path, hint):
        if path.name == ORIGINAL:
            found = _original(read_text(path, otherwise="latin-1", hint=f"; {hint}"))
        else:
            found = (
                _table(read_text(path, hint=f"; {hint}"), block=block)
                if ".csv" in path.suffixes
                else _leaf(path)
            )
    kinds = {tweet.label for tweet in found.tweets}
    if len(kinds) == 1:
        raise BadInput(
            f"{path}: all {len(found.tweets)} tweets are {CLASSES[kinds.pop()]}; there are two classes; {hint}"
        )
    return found


class _Labels:
    """Reads labels and remembers how they are written, so that a file does not mix two ways."""

    def __init__(self, known: Mapping[str, int]) -> None:
        self.known = known
        self.seen: set[str] = set()

    def read(self, given: str, where: str) -> int | None:
        """The class, None for a neutral tweet. ``4.0`` is 4."""
        word = str(int(float(given))) if re.fullmatch(r"[0-9]\.0+", given) else given
        if word == NEUTRAL:
            return None
        if word not in self.known:
            raise ValueError(
                f"{where} has the label {given!r}, which is none of {', '.join(self.known)} and {NEUTRAL}"
            )
        self.seen.add(word)
        if {"1", "4"} <= self.seen:
            raise ValueError(
                f"{where} has the label {given!r} after others of {self.seen - {word, '0'}}: positive is 1 or 4, not both"
            )
        return self.known[word]


def _collect(rows: Iterable[tuple[int | None, str, str]]) -> tuple[list[_Tweet], Counter[str]]:
    """The tweets with a label, and how many have none."""
    tweets: list[_Tweet] = []
    lost: Counter[str] = Counter()
    for label, user, tweet in rows:
        if label is None:
            lost["neutral"] += 1
        else:
            tweets.append(_Tweet(label, user, tweet))
    return tweets, lost


def _table(content: str, *, block: bool) -> _Found:
    rows = csv_records(content, strip=False)
    header = [name.strip() for name in next(rows, (1, []))[1]]
    place = {}
    for name in ("label", "user", "text", "part"):
        if name not in header:
            raise ValueError(f"line 1 names no column {name!r}; {nearest(name, header)}")
        place[name] = header.index(name)
    labels = _Labels(LABELS)
    left: Counter[str] = Counter()

    def wanted() -> Iterator[tuple[int | None, str, str]]:
        for line, row in rows:
            if len(row) != len(header):
                raise ValueError(f"line {line} has {len(row)} fields; the first has {len(header)}")
            if not block and row[place["part"]] == "block":
                left["of part block"] += 1
                continue
            yield (
                labels.read(row[place["label"]], f"line {line}"),
                row[place["user"]],
                row[place["text"]],
            )

    tweets, lost = _collect(wanted())
    return _Found(tweets, left + lost)


def _original(content: str) -> _Found:
    """Six fields a line. Where quotation marks do not enclose the tweets every line is taken by
    itself, its first five commas separating.
    """
    notes: list[str] = []
    try:
        rows = [(line, row) for line, row in csv_records(content, strip=False)]
        whole = all(len(row) == ORIGINAL_FIELDS for _, row in rows)
    except ValueError:
        whole = False
    if not whole:
        lines = [
            (number, line)
            for number, line in enumerate(content.splitlines(), start=1)
            if line.strip()
        ]
        rows = [(number, _by_itself(line)) for number, line in lines]
        other = next((number for number, row in rows if len(row) != ORIGINAL_FIELDS), None)
        if other is not None:
            count = len(dict(rows)[other])
            raise ValueError(
                f"line {other} has not enough values, {count}; every line has {ORIGINAL_FIELDS}"
            )
        notes.append("quotation marks do not enclose the tweets: every line is taken by itself")
    left: Counter[str] = Counter()
    if rows and not re.fullmatch(r"[0-9.]+", rows[0][1][0]) and rows[0][1][0].isalpha():
        left["header line"] += 1
        rows = rows[1:]
    labels = _Labels(POLARITIES)
    tweets, lost = _collect(
        (labels.read(row[0], f"line {line}"), row[4], row[5]) for line, row in rows
    )
    return _Found(tweets, left + lost, tuple(notes))


def _by_itself(line: str) -> list[str]:
    """The fields of one line: as csv where that gives all of them, else between its first five
    commas.
    """
    try:
        ((_, fields),) = csv_records(line, strip=False)
    except ValueError:
        fields = []
    return fields if len(fields) == ORIGINAL_FIELDS else line.split(",", ORIGINAL_FIELDS - 1)


def _leaf(path: Path) -> _Found:
    """All files of a folder, none of which may repeat another: LEAF writes its data before and
    after each step of its own.
    """
    labels, seen = _Labels(LABELS), set[tuple[int | None, str, str]]()
    tweets: list[_Tweet] = []
    left: Counter[str] = Counter()
    notes: list[str] = []
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        rows = list(_leaf_file(file, labels))
        again = sum(row in seen for row in rows)
        if 2 * again > len(rows):
            raise ValueError(
                f"{again} of the {len(rows)} tweets of {file.name} stand in other files of the folder; keep one copy"
            )
        if again:
            notes.append(f"{again} tweets of {file.name} stand in other files too")
        seen.update(rows)
        some, lost = _collect(rows)
        tweets += some
        left += lost
    return _Found(tweets, left, tuple(notes))


def _leaf_file(path: Path, labels: _Labels) -> Iterator[tuple[int | None, str, str]]:
    content = json.loads(read_text(path))
    for user in content["users"]:
        own = content["user_data"][user]
        for fields, label in zip(own["x"], own["y"], strict=True):
            tweet = _tweet_of(fields)
            if not isinstance(tweet, str):
                raise TypeError(f"{path.name}: user {user!r} has the text {tweet!r}")
            yield labels.read(str(label), f"{path.name}: user {user!r}"), user, tweet


def _tweet_of(fields: Any) -> Any:
    """The text of a sample: the fifth of its fields, the only one, or the sample itself."""
    if isinstance(fields, str):
        return fields
    if len(fields) == 1:
        return fields[0]
    _, _, _, _, tweet, *_ = fields
    return tweet


def _lines(path: Path) -> list[str]:
    """The tweets of a file that have a word."""
    with naming_file(path, EDGE_HINT):
        lines = [
            line for line in read_text(path, hint=f"; {EDGE_HINT}").split("\n") if _words(line)
        ]
    if not lines:
        raise BadInput(f"{path} holds no tweet; {EDGE_HINT}")
    return lines


def _vectors(path: Path, vocabulary: Mapping[str, int], words: int, seed: int) -> Tensor:
    """Initial values of an embedding (words + 1, dim)."""
    found: dict[int, np.ndarray[tuple[int], np.dtype[np.float32]]] = {}
    with naming_file(path, VECTORS_HINT), path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            word, _, rest = line.partition(" ")
            token = vocabulary.get(word, 1)
            if token == 1:
                continue
            try:
                row = np.array(rest.split(), np.float32)
            except ValueError:
                row = np.empty(0, np.float32)
            dim = len(next(iter(found.values()), row))
            if len(row) != dim or not dim or not np.isfinite(row).all():
                raise BadInput(
                    f"{path}: line {number} is not a word and {dim or 'some'} finite numbers; {VECTORS_HINT}"
                )
            found[token] = row
    if not found:
        raise BadInput(
            f"{path} has none of the {len(vocabulary)} words of the tweets; {VECTORS_HINT}"
        )
    numbers = np.stack(list(found.values()))
    # numpy's sums, unlike torch's, do not depend on the number of threads
    deviation = float(numbers.std(dtype=np.float64))
    rows = (
        torch.randn(words + 1, numbers.shape[1], generator=generator(seed, "twitter", "vectors"))
        * deviation
    )
    rows[list(found)] = torch.from_numpy(numbers)
    rows[0] = 0
    rows[1] = torch.from_numpy(numbers.mean(0, dtype=np.float64))
    return rows
