"""A column of labels as classes, and a column of clients: texts as the numbers 0, 1, …"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from backstop.platform.intake.columns import MISSING_NUMBERS, TRUTH, RowLines
from backstop.platform.intake.grid import LEAST_ROWS, is_number
from backstop.platform.params import BadInput

MOST_CLASSES = 1000
# so many different numbers with fewer rows each than this are no classes
QUANTITY_VALUES, QUANTITY_ROWS = 20, 5


class Labels(NamedTuple):
    """The class of each row, the names of the classes, and what is to be said of them."""

    y: npt.NDArray[np.int64]
    classes: list[str]
    notes: list[str]


class Owners(NamedTuple):
    """The natural client of each row by its number, (N,) int64, and the names of the clients."""

    client: torch.Tensor
    names: tuple[str, ...]


def read_labels(
    words: list[str],
    name: str,
    source: RowLines,
) -> Labels:
    """The labels in a column. BadInput where they are too few or too many to be classes."""
    where = f"{source.path}: label column {name!r}"
    rows = len(words)
    if rows < LEAST_ROWS:
        raise BadInput(f"{where} has {rows} labeled rows; there are at least {LEAST_ROWS}")
    classes = _ordered(words)
    count = len(classes)
    if count == rows:
        raise BadInput(
            f"{where} has as many values as rows, {count}, so it seems to name the rows;"
            " choose the labels with table(label=…)"
        )
    if not 2 <= count <= MOST_CLASSES:
        raise BadInput(
            f"{where} has {count} distinct values; there are 2 to {MOST_CLASSES} classes"
        )
    if _like_quantity(classes, rows):
        raise BadInput(
            f"{where} has {count} different numbers in {rows} rows,"
            " so it seems to be a quantity; classes have names"
        )
    return Labels(_numbered(words, classes), classes, [*_alike(classes), *_like_missing(words)])


def _like_quantity(classes: list[str], rows: int) -> bool:
    """Whether there are many numbers, each in few rows."""
    count = len(classes)
    if count <= QUANTITY_VALUES or rows >= QUANTITY_ROWS * count:
        return False
    return all(map(is_number, classes))


def _ordered(words: Sequence[str]) -> list[str]:
    """The distinct words in order: as truth values or numbers where all are, else as text."""
    distinct = set(words)
    if {word.lower() for word in distinct} <= set(TRUTH):
        return sorted(distinct, key=lambda word: (TRUTH[word.lower()], word))
    if all(map(is_number, distinct)):
        return sorted(distinct, key=lambda word: (float(word), word))
    return sorted(distinct)


def _numbered(words: Sequence[str], known: Sequence[str]) -> npt.NDArray[np.int64]:
    label = {word: code for code, word in enumerate(known)}
    return np.array([label[word] for word in words], np.int64)


def _alike(classes: list[str]) -> Iterator[str]:
    """Classes that may be one."""
    yield from _same(classes, str.lower, "differ in case only")
    yield from _same(
        classes, lambda word: float(word) if is_number(word) else word, "are one number"
    )


def _same(
    classes: list[str],
    key: Callable[[str], Any],
    how: str,
) -> Iterator[str]:
    together: dict[Any, list[str]] = {}
    for word in classes:
        together.setdefault(key(word), []).append(word)
    for words in together.values():
        if len(words) > 1:
            yield f"classes {', '.join(map(repr, words[:-1]))} and {words[-1]!r} {how}"


def _like_missing(words: list[str]) -> Iterator[str]:
    for word, count in Counter(words).items():
        if word.lower() in MISSING_NUMBERS:
            yield (
                f"{word!r} is a class of {count} rows; if it means a missing label, missing={word}"
            )


def untested(labels: Labels, tested: npt.NDArray[np.bool_]) -> list[str]:
    """What is to be said of classes without a test row."""
    y = labels.y
    return [
        f"class {labels.classes[label]!r} has no test rows, {int((y == label).sum())} to train on"
        for label in sorted(set(y[~tested].tolist()) - set(y[tested].tolist()))
    ]


def check_trained(
    labels: Labels,
    tested: npt.NDArray[np.bool_],
    path: Path,
) -> None:
    """Raise BadInput where a class has test rows and no training rows."""
    y = labels.y
    for label in sorted(set(y[tested].tolist()) - set(y[~tested].tolist())):
        raise BadInput(
            f"{path}: class {labels.classes[label]!r} has no training rows,"
            f" its {int((y == label).sum())} rows are all test rows;"
            " choose another seed or a smaller test, or leave these rows out"
        )


def read_clients(
    words: list[str],
    name: str,
    missing: frozenset[str],
    source: RowLines,
) -> Owners:
    """The number of each row's natural client. BadInput where a row has none."""
    absent = [row for row, word in enumerate(words) if word in missing or word == ""]
    if absent:
        raise BadInput(
            f"{source.path}: client column {name!r} is empty in {len(absent)} rows,"
            f" first in line {source.lines[absent[0]]}; every row has a client"
        )
    names = _ordered(words)
    return Owners(torch.from_numpy(_numbered(words, names)), tuple(names))


def number_clients(owner: Sequence[str], names: Sequence[str]) -> Owners:
    """The clients of rows whose names are known, in the order of these."""
    return Owners(torch.from_numpy(_numbered(owner, names)), tuple(names))
