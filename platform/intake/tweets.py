"""The tweets of Sentiment140 in each of the forms in which they are published."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backstop.platform.intake.files import csv_records, naming_file, read_text
from backstop.platform.params import BadInput, nearest

CLASSES = ("negative", "positive")
LABELS = {
    "0": 0,
    "1": 1,
    "4": 1,
}  # 4 as in the original
POLARITIES = {"0": 0, "4": 1}
NEUTRAL = "2"
ORIGINAL = "training.1600000.processed.noemoticon.csv"
READ_COLUMNS = ("label", "user", "text", "part")  # of form csv
ORIGINAL_FIELDS = 6  # polarity, id, date, query, user, text

NumberedFields = tuple[int, list[str]]  # the line in which a record begins, and its fields
TweetRow = tuple[int | None, str, str]  # label, None for a neutral tweet; user; text


class Tweet(NamedTuple):
    """A tweet with a label."""

    label: int
    user: str
    text: str


class Tweets(NamedTuple):
    """The tweets of a file, how many were left out and why, and what is to be said of them."""

    tweets: list[Tweet]
    left: Counter[str]
    notes: tuple[str, ...] = ()


def read_tweets(
    path: Path,
    hint: str,
    *,
    block: bool,
) -> Tweets:
    """The labeled tweets of any form, in the order of the file; with ``block`` also that part's.

    BadInput where all have one label.
    """
    with naming_file(path, hint):
        if path.name == ORIGINAL:
            read = _original(read_text(path, otherwise="latin-1", hint=f"; {hint}"))
        elif ".csv" in path.suffixes:
            read = _table(read_text(path, hint=f"; {hint}"), block=block)
        else:
            read = _leaf(path)
    kinds = {tweet.label for tweet in read.tweets}
    if len(kinds) == 1:
        raise BadInput(
            f"{path}: all {len(read.tweets)} tweets are {CLASSES[kinds.pop()]};"
            f" there are two classes; {hint}"
        )
    return read


class _Labels:
    """Reads labels and remembers how they are written, so that a file does not mix two ways."""

    def __init__(self, known: Mapping[str, int]) -> None:
        self.known = known
        self.seen: set[str] = set()

    def read(self, given: str, where: str) -> int | None:
        """The class, None for a neutral tweet. ``4.0`` is 4."""
        word = _without_fraction(given)
        if word == NEUTRAL:
            return None
        if word not in self.known:
            raise ValueError(
                f"{where} has the label {given!r},"
                f" which is none of {', '.join(self.known)} and {NEUTRAL}"
            )
        self.seen.add(word)
        if {"1", "4"} <= self.seen:
            raise ValueError(
                f"{where} has the label {given!r} after others of {self.seen - {word, '0'}}:"
                " positive is 1 or 4, not both"
            )
        return self.known[word]


def _without_fraction(label: str) -> str:
    """``4.0`` as 4, everything else as it stands."""
    return label[0] if re.fullmatch(r"[0-9]\.0+", label) else label


def _collect(rows: Iterable[TweetRow]) -> tuple[list[Tweet], Counter[str]]:
    """The tweets with a label, and how many have none."""
    tweets: list[Tweet] = []
    left: Counter[str] = Counter()
    for label, user, text in rows:
        if label is None:
            left["neutral"] += 1
        else:
            tweets.append(Tweet(label, user, text))
    return tweets, left


def _table(content: str, *, block: bool) -> Tweets:
    """Columns by their names in the first line."""
    records = csv_records(content, strip=False)
    _, names = next(records, (1, []))
    header = [name.strip() for name in names]
    position = _positions(header)
    labels = _Labels(LABELS)
    left: Counter[str] = Counter()

    def rows() -> Iterator[TweetRow]:
        for line, fields in records:
            if len(fields) != len(header):
                raise ValueError(
                    f"line {line} has {len(fields)} fields; the first has {len(header)}"
                )
            if not block and fields[position["part"]] == "block":
                left["of part block"] += 1
                continue
            label = labels.read(fields[position["label"]], f"line {line}")
            yield label, fields[position["user"]], fields[position["text"]]

    tweets, neutral = _collect(rows())
    return Tweets(tweets, left + neutral)


def _positions(header: list[str]) -> dict[str, int]:
    """Where the columns stand that are read, by their names."""
    for name in READ_COLUMNS:
        if name not in header:
            raise ValueError(f"line 1 names no column {name!r}; {nearest(name, header)}")
    return {name: header.index(name) for name in READ_COLUMNS}


def _original(content: str) -> Tweets:
    """Six fields a line. Where quotation marks do not enclose the tweets every line is taken by
    itself, its first five commas separating.
    """
    notes: list[str] = []
    records = _whole_records(content)
    if records is None:
        records = _line_by_line(content)
        notes.append("quotation marks do not enclose the tweets: every line is taken by itself")
    left: Counter[str] = Counter()
    if records and records[0][1][0].isalpha():
        left["header line"] += 1
        records = records[1:]
    labels = _Labels(POLARITIES)
    tweets, neutral = _collect(
        (labels.read(fields[0], f"line {line}"), fields[4], fields[5]) for line, fields in records
    )
    return Tweets(tweets, left + neutral, tuple(notes))


def _whole_records(content: str) -> list[NumberedFields] | None:
    """The records as csv has them; None where one has not all fields."""
    try:
        records = list(csv_records(content, strip=False))
    except ValueError:
        return None
    whole = all(len(fields) == ORIGINAL_FIELDS for _, fields in records)
    return records if whole else None


def _line_by_line(content: str) -> list[NumberedFields]:
    records = []
    for line_number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        fields = _fields_of_line(line)
        if len(fields) != ORIGINAL_FIELDS:
            raise ValueError(
                f"line {line_number} has not enough values, {len(fields)};"
                f" every line has {ORIGINAL_FIELDS}"
            )
        records.append((line_number, fields))
    return records


def _fields_of_line(line: str) -> list[str]:
    """The fields of one line: as csv where that gives all of them, else between its first five
    commas.
    """
    try:
        ((_, fields),) = csv_records(line, strip=False)
    except ValueError:
        fields = []
    return fields if len(fields) == ORIGINAL_FIELDS else line.split(",", ORIGINAL_FIELDS - 1)


def _leaf(path: Path) -> Tweets:
    """All files of a folder, none of which may repeat another: LEAF writes its data before and
    after each step of its own.
    """
    labels, seen = _Labels(LABELS), set[TweetRow]()
    tweets: list[Tweet] = []
    left: Counter[str] = Counter()
    notes: list[str] = []
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        rows = list(_leaf_file(file, labels))
        again = sum(row in seen for row in rows)
        _refuse_copy(file, again, len(rows))
        if again:
            notes.append(f"{again} tweets of {file.name} stand in other files too")
        seen.update(rows)
        of_file, neutral = _collect(rows)
        tweets += of_file
        left += neutral
    return Tweets(tweets, left, tuple(notes))


def _refuse_copy(
    file: Path,
    again: int,
    tweets: int,
) -> None:
    """ValueError where most tweets of a file stand in others too."""
    if 2 * again > tweets:
        raise ValueError(
            f"{again} of the {tweets} tweets of {file.name} stand in other files of the"
            " folder; keep one copy"
        )


def _leaf_file(path: Path, labels: _Labels) -> Iterator[TweetRow]:
    content = json.loads(read_text(path))
    for user in content["users"]:
        own = content["user_data"][user]
        for fields, label in zip(own["x"], own["y"], strict=True):
            text = _leaf_text(fields)
            if not isinstance(text, str):
                raise TypeError(f"{path.name}: user {user!r} has the text {text!r}")
            yield labels.read(str(label), f"{path.name}: user {user!r}"), user, text


def _leaf_text(fields: Any) -> Any:
    """The text of a sample: the fifth of its fields, the only one, or the sample itself."""
    if isinstance(fields, str):
        return fields
    if len(fields) == 1:
        return fields[0]
    _, _, _, _, text, *_ = fields
    return text
