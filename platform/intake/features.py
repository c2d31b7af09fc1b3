"""Columns as the features of a model, by what the training part holds; what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from backstop.platform.contract import Column
from backstop.platform.intake.columns import Mask, RowLines, TakenColumn, codes_of
from backstop.platform.params import BadInput

if TYPE_CHECKING:
    from backstop.platform.intake.columns import Values

MOST_UNITS = 5  # columns of numbers with a unit that the load's line names at most
Feature = npt.NDArray[np.float32]
KIND_NAMES = {
    "number": "numbers",
    "truth value": "truth values",
    "category": "categories",
}


def make_features(
    inputs: Sequence[TakenColumn],
    train: Mask,
    categories: int,
    source: RowLines,
) -> tuple[Feature, list[Column]]:
    """(N, F): the features of all columns, without those that have one single value in the training
    part; and what became of each column.
    """
    features: list[Feature] = []
    columns: list[Column] = []
    for taken in inputs:
        candidates = [values.to_numpy(np.float32) for values in _values(taken, train, categories)]
        own = [feature for feature in candidates if _varies(feature[train])]
        features += own
        columns.append(_column(taken, len(own), train))
    if not features:
        raise BadInput(
            f"{source.path}: no column of inputs has two different values in the training part"
        )
    return np.stack(features, axis=1), columns


def _varies(feature: Feature) -> bool:
    return bool((feature != feature[0]).any())


def _values(
    taken: TakenColumn,
    train: Mask,
    categories: int,
) -> list[Values]:
    fields = taken.fields
    if taken.kind == "category":
        return _of_text(fields, train, categories)
    known = fields[train].dropna()
    median = known.median() if len(known) else 0.0
    return [fields.fillna(median), fields.isna()]


def _of_text(
    column: Values,
    train: Mask,
    categories: int,
) -> list[Values]:
    """One feature for each of the most frequent values, and one for all others."""
    values = column.fillna("")  # no other value is empty
    counted = values[train].value_counts()
    counts = {str(value): int(count) for value, count in counted.items()}
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    own = ranked[:categories]
    return [*(values == value for value in own), ~values.isin(own)]


def _column(
    taken: TakenColumn,
    features: int,
    train: Mask,
) -> Column:
    """What became of a column."""
    if not features:
        return Column(taken.name, "left out", 0, _why_left_out(taken.fields[train]))
    detail = []
    if taken.kind == "category":
        detail.append(f"{taken.fields.nunique()} values")
        if taken.unit:
            detail.append(f"each a number with {taken.unit!r} after it")
    absent = int(taken.fields.isna().sum())
    if absent:
        detail.append(f"{absent} missing")
    return Column(taken.name, taken.kind, features, ", ".join(detail))


def _why_left_out(train: Values) -> str:
    """Why nothing can be learned from the training part of a column."""
    different = set(train.dropna())
    if len(different) > 1:
        return "its numbers are one in float32"
    return "one single value in the training part"


def with_units(inputs: Sequence[TakenColumn], columns: Sequence[Column]) -> list[str]:
    """One note for all columns of numbers with a unit, so that the load's line has room for it."""
    categories = {column.name for column in columns if column.kind == "category"}
    measured = [taken for taken in inputs if taken.unit and taken.name in categories]
    notes = [
        f"column {taken.name!r}: every value is a number with {taken.unit!r} after it;"
        f" read as {taken.fields.nunique()} categories"
        for taken in measured[:MOST_UNITS]
    ]
    if len(measured) > MOST_UNITS:
        notes.append(f"{len(measured) - MOST_UNITS} more such columns")
    return ["; ".join(notes)] if notes else []


def like_labels(taken: TakenColumn, y: npt.NDArray[np.int64]) -> list[str]:
    """What is to be said of a column whose values are the classes in other words."""
    codes = codes_of(taken.fields) + 1
    classes = int(y.max()) + 1
    values, pairs = np.unique(codes), np.unique(codes * classes + y)
    if len(values) == classes == len(pairs):
        return [
            f"column {taken.name!r} is the label in other words: every value goes with one class"
        ]
    return []


def summary(features: int, columns: Sequence[Column]) -> str:
    """The columns by kind.

    >>> summary(3, [Column("a", "number", 1), Column("b", "left out", 0)])
    "3 features from columns: 1 of numbers, left out 'b'"
    """
    counts = Counter[str](column.kind for column in columns)
    kinds = [f"{counts[kind]} of {name}" for kind, name in KIND_NAMES.items() if counts[kind]]
    left = [repr(column.name) for column in columns if column.kind == "left out"]
    if len(left) > 3:
        left = [*left[:3], "…"]
    if left:
        kinds.append(f"left out {', '.join(left)}")
    return f"{features} features from columns: {', '.join(kinds)}"
