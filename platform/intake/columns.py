"""A column of text fields as numbers, as truth values or as categories."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from backstop.platform.intake.grid import counts_rows
from backstop.platform.params import BadInput

if TYPE_CHECKING:
    import pandas as pd

    Values = pd.Series[Any]

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]
Words = npt.NDArray[Any]  # text as objects

MISSING_WORDS = frozenset({"", "?", "NA", "N/A", "NaN", "nan", "null", "NULL"})
# words that stand among numbers, in any case
MISSING_NUMBERS = frozenset(
    {"", "?", "na", "n/a", "n.a.", "nan", "-nan", "null", "nil", "none", "missing"}
    | {"-", "--", ".", "<na>", "#n/a", "#na", "#value!", "#div/0!"}
)
TRUTH = {"false": 0.0, "true": 1.0}
TRUTH_OR_DIGIT = {
    **TRUTH,
    "0": 0.0,
    "1": 1.0,
}
IN_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
WITH_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
MOSTLY = 0.9  # share of numbers from which the other fields of a column are mistakes
# what ends with the last digit, and what stands after it
WITH_UNIT = re.compile(r"(.*\d)\s*([^\d\s]\D*)")
LARGEST = float(np.finfo(np.float32).max)


class NumberForm(NamedTuple):
    """How numbers, and missing ones, are written."""

    decimal: str  # the mark before the fraction
    thousands: str  # the mark between thousands, empty where there is none
    missing: frozenset[str]  # more words that stand for a missing value
    categories: int  # so many different numbers are no codes


class RowLines(NamedTuple):
    """Where rows stand, for messages: the file, and the line in which each begins; of several files
    their pattern, and ``57 of hospital_3.csv``.
    """

    path: Path
    lines: npt.NDArray[Any]


class TakenColumn(NamedTuple):
    """A column of inputs: float64 with NaN where a value is missing, or text with NaN likewise."""

    name: str
    kind: Literal["number", "truth value", "category"]
    fields: Values
    notes: tuple[str, ...] = ()
    unit: str = ""  # what stands after the number in every value of a category


class _Fields(NamedTuple):
    """A column by its distinct words: field i is ``words[which[i]]``."""

    name: str
    words: Words
    which: npt.NDArray[np.int64]

    def spread(self, values: npt.NDArray[Any]) -> Values:
        """A value for each word as a value for each field."""
        import pandas as pd

        return pd.Series(values[self.which], name=self.name)

    def count(self, words: Mask) -> int:
        """How many fields hold one of these words."""
        counts = np.bincount(self.which, minlength=len(self.words))
        return int(counts[words].sum())


def take_column(
    name: str,
    column: list[str],
    form: NumberForm,
    source: RowLines,
    *,
    as_text: bool,
) -> TakenColumn:
    """The column as numbers if all that is there are, as truth values likewise, else as text.

    BadInput where a few fields are no numbers.
    """
    fields = _distinct(name, column)
    if as_text:
        return _category(fields, form)
    words = fields.words
    missing = _which(words, lambda word: _is_missing_number(word, form))
    if _are_truth_values(words[~missing]):
        truth = [TRUTH_OR_DIGIT.get(word.lower(), np.nan) for word in words]
        return TakenColumn(name, "truth value", fields.spread(np.array(truth)))
    numbers = _numbers(words, form)
    numbers[missing] = np.nan
    strange = ~missing & np.isnan(numbers)
    if not strange.any():
        return _number(name, fields.spread(numbers), source)
    plain = ~missing & ~strange
    notes = _mixed(fields, strange, plain, form, source)
    unit = _unit(words[~missing], form)
    return _category(fields, form, notes, unit)


def _distinct(name: str, column: list[str]) -> _Fields:
    """The column by its distinct words, in the order in which they come."""
    import pandas as pd

    which, words = pd.factorize(np.array(column, dtype=object))
    return _Fields(name, words, which)


def _which(words: Words, test: Callable[[str], object]) -> Mask:
    """The words that pass a test."""
    return np.array([bool(test(word)) for word in words], dtype=np.bool_)


def _are_truth_values(words: Words) -> bool:
    """Whether all are true or false, some perhaps written as digits."""
    written = {word.lower() for word in words}
    return written <= set(TRUTH_OR_DIGIT) and not written.isdisjoint(TRUTH)


def _is_missing(word: str, form: NumberForm) -> bool:
    return word in MISSING_WORDS or word in form.missing


def _is_missing_number(word: str, form: NumberForm) -> bool:
    return _is_missing(word, form) or word.lower() in MISSING_NUMBERS


def _category(
    fields: _Fields,
    form: NumberForm,
    notes: tuple[str, ...] = (),
    unit: str = "",
) -> TakenColumn:
    text = fields.words.astype(object)
    text[_which(text, lambda word: _is_missing(word, form))] = np.nan
    if len(fields.words) == len(fields.which) and not unit:
        names_rows = (
            f"column {fields.name!r} has another text in every row:"
            " it names the rows, leave it out with drop="
        )
        notes = (*notes, names_rows)
    return TakenColumn(fields.name, "category", fields.spread(text), notes, unit)


def _unit(words: Words, form: NumberForm) -> str:
    """What stands after the number in every word; nothing where it differs or a word is anything
    else.
    """
    measured = takewhile(bool, map(WITH_UNIT.fullmatch, words))
    matches = [match for match in measured if match]
    units = {match[2] for match in matches}
    if len(matches) < len(words) or len(units) != 1:
        return ""
    before = [match[1] for match in matches]
    numbers = _numbers(np.array(before, dtype=object), form)
    return "" if np.isnan(numbers).any() else units.pop()


def _numbers(words: Words, form: NumberForm) -> Numbers:
    """The words as numbers, NaN where they are none."""
    import pandas as pd

    if form.decimal != "." or form.thousands:
        plain = [_plain_number(word, form) for word in words]
        words = np.array(plain, dtype=object)
    fields = pd.Series(words, dtype=object)
    numbers: Numbers = pd.to_numeric(fields, errors="coerce").to_numpy(np.float64)
    return numbers.copy()


def _plain_number(word: str, form: NumberForm) -> str:
    """A number in another form as Python writes it."""
    if form.thousands:
        word = _without_thousands(word, form.thousands)
    if form.decimal != "." and "." in word:
        return "no number"
    return word.replace(form.decimal, ".")


def _without_thousands(word: str, mark: str) -> str:
    """The word without the marks between the thousands of its first number."""
    group = rf"{re.escape(mark)}\d{{3}}"
    grouped = rf"([+-]?\d{{1,3}})((?:{group})+)(?!\d)"
    return re.sub(grouped, lambda match: match[1] + match[2].replace(mark, ""), word, count=1)


def _number(
    name: str,
    values: Values,
    source: RowLines,
) -> TakenColumn:
    _check_range(name, values, source)
    known = values.dropna().to_numpy()
    notes = []
    if len(known) == len(values) and counts_rows(known):
        notes.append(
            f"column {name!r} counts the rows, which makes all of them distinct:"
            " leave it out with drop= if it says nothing"
        )
    different = len(np.unique(known))
    left = len(np.unique(known.astype(np.float32)))
    if left < MOSTLY * different:
        notes.append(
            f"column {name!r}: {different} different numbers are {left} in float32,"
            " which keeps seven digits"
        )
    return TakenColumn(name, "number", values, tuple(notes))


def _check_range(
    name: str,
    values: Values,
    source: RowLines,
) -> None:
    """BadInput where float32 does not reach to a number."""
    beyond = np.flatnonzero((values.abs() > LARGEST).to_numpy())
    if len(beyond):
        raise BadInput(
            f"{source.path}: column {name!r} holds infinity or numbers beyond ±{LARGEST:.2g}"
            f" in line {source.lines[beyond[0]]} ({len(beyond)} rows);"
            " correct them, name them in missing=…, or the column in drop=…"
        )


def _mixed(
    fields: _Fields,
    strange: Mask,
    plain: Mask,
    form: NumberForm,
    source: RowLines,
) -> tuple[str, ...]:
    """What is to be said of a column of numbers and other fields.

    BadInput where the others are surely mistakes.
    """
    numbers, others = fields.count(plain), fields.count(strange)
    listed = _first_of(fields, strange, source)
    if others > 1:
        listed += f" and {others - 1} others"
    options = _other_forms(fields, strange)
    how = f"; they are numbers with {' or '.join(options)}" if options else ""
    mostly = numbers >= MOSTLY * (numbers + others)
    if mostly and int(plain.sum()) > form.categories:
        raise BadInput(
            f"{source.path}: column {fields.name!r} is {numbers} numbers and {listed}"
            f"{how or '; correct them'}, name them in missing=…,"
            f" or take the column as text: text={fields.name}"
        )
    if options or numbers >= others:
        return (f"column {fields.name!r} is taken as text: {numbers} numbers and {listed}{how}",)
    return ()


def _first_of(
    fields: _Fields,
    words: Mask,
    source: RowLines,
) -> str:
    """The first of these words, with its line."""
    first = np.flatnonzero(words)[0]
    row = np.argmax(fields.which == first)
    return f"{fields.words[first]!r} in line {source.lines[row]}"


def _other_forms(fields: _Fields, strange: Mask) -> list[str]:
    """The options with which at least half of the strange fields are numbers."""
    options = []
    for option, pattern in (("thousands", IN_THOUSANDS), ("decimal", WITH_COMMA)):
        like = _which(fields.words, pattern.fullmatch)
        if 2 * fields.count(strange & like) >= fields.count(strange):
            options.append(f"{option}=comma")
    return options


def codes_of(column: Values) -> npt.NDArray[np.int64]:
    """The number of each field's value among the distinct values in sorted order; -1 where it is
    missing.
    """
    import pandas as pd

    return pd.factorize(column, sort=True)[0].astype(np.int64)
