"""Anyone's table: a csv file with a header line and a column of labels.

Numbers stay as they are, true and false become 1 and 0, any other column becomes one 0/1 feature
for each of its values. Labels are the distinct texts of the label column, in order as numbers where
all of them are, else as text: 0, 1, …

Shapes: (N, F) float32; 2 to 1000 classes. The test part holds ``test`` of the distinct rows with
all their copies, where two rows are equal if all columns are that become features: equal rows are
on one side, whatever their labels.

Source: no publication; the data are the user's own. On features for the values of a column and on
missing values: M. Kuhn, K. Johnson, "Feature Engineering and Selection", CRC Press, 2019, chapters
5 and 8 (remembered).

Deviations: none. All that is learnt from data (values, medians, mean and std) is learnt from the
training part. In detail:

- A column is numeric if all that is there reads as numbers, and of truth values if it is true,
  false, 1 or 0 and not numbers only, in the training and in the test part; dates are text, and so
  are the columns named in ``text``.
- A column of numbers but for a few fields is refused where more than ``categories`` numbers differ
  and at most a tenth of the fields are others; else it is text, and the reading says so.
  ``missing`` names words that stand for a missing value.
- A text column gets features for its most frequent values, ``categories`` at most, ties in
  alphabetical order. Rarer values, and those that only the test part has, share one more; where the
  training part has no rarer ones, those that only the test part has are 0 in all features.
- Missing are empty fields, ?, NA, N/A, NaN, nan, null and NULL; among numbers also the usual words
  in any case (n/a, #N/A, -, none, …). Among numbers they become the median, with a 0/1 feature "is
  missing" if the training part has some; among text they are a value of their own.
- Labels and clients are text, as they stand without the blanks around them: 1 and 01 are two, NA is
one. Rows without a label are left out.
- A feature with one single value in the training part is left out, and so is a column without a
name that is empty or counts the rows.
- Numbers are kept to float32's seven digits, not clipped or transformed: the platform subtracts the
mean and divides by the standard deviation.
- Rows of other lengths than the header line, a label named twice, quotation marks that are not
  closed and bytes of another encoding are refused with the line. Blank lines, a byte-order mark, a
  first line ``sep=;`` and a separator at the end of every row mean nothing.
- What may not be meant is said at every load: a column of numbers with a unit (3.94%), whose values
  are categories, one that counts the rows (it makes all rows distinct, so that copies are no longer
  seen), one that is the label in other words, a header line that looks like data, classes that
  differ in case only, and the like.

Files: ``path``, relative to the data folder or absolute; UTF-8 or as a byte-order mark or
``encoding`` says, as it is or packed by gzip, bzip2, xz or zip. The id of a spec holds the path and
the other parameters, not the content of the file: who changes the file has to give it another name.

Checked: against files in the forms of public reports (pandas #22661, #48170; CICFlowMeter #12;
GNN-NIDS #3) with made-up values.

Example:
>>> table(path="adult.csv", label="income", drop="fnlwgt+education").files[0].path
'adult.csv'
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from backstop.platform.contract import Column, Data, Dataset, File, Reading
from backstop.platform.intake.checks import checked
from backstop.platform.intake.files import csv_records, locate_file, naming_file
from backstop.platform.intake.files import read_text as text_of
from backstop.platform.intake.tables import held_out, parted, repeats
from backstop.platform.params import BadInput, Range, nearest
from backstop.platform.seeds import generator

if TYPE_CHECKING:
    import pandas as pd

    Values = pd.Series[Any]

VERSION = 2
KINDS = ("table",)
HINT = "put a csv file there (UTF-8, fields separated by commas, a header line), or name another: table(path=…)"
MISSING = frozenset({"", "?", "NA", "N/A", "NaN", "nan", "null", "NULL"})
MISSING_NUMBER = frozenset(  # words that stand among numbers, in any case
    {
        "",
        "?",
        "na",
        "n/a",
        "n.a.",
        "nan",
        "-nan",
        "null",
        "nil",
        "none",
        "-",
        "--",
        ".",
        "#n/a",
        "#na",
        "#value!",
        "#div/0!",
    }
    | {"<na>", "missing"}
)
TRUTH = {"false": 0.0, "true": 1.0}
TRUTH_TOO = {**TRUTH, "0": 0.0, "1": 1.0}
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
MARKS = {"comma": ",", "point": ".", "blank": " ", "apostrophe": "'"}
IN_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
WITH_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
ROWS = 10  # a table has at least
CLASSES = 1000  # and at most
MOSTLY = 0.9  # share of numbers from which the other fields of a column are mistakes
# what ends with the last digit, and what stands after it
UNIT = re.compile(r"(.*\d)\s*([^\d\s]\D*)")
NAMED = 5  # columns of numbers with a unit that the load's line names at most
QUANTITY = 20, 5  # so many different numbers with fewer rows each than this are no classes
LARGEST = float(np.finfo(np.float32).max)


class _Grid(NamedTuple):
    """The fields of a file as text."""

    names: list[str]
    columns: list[list[str]]
    lines: npt.NDArray[np.int64]  # the line in which each row begins
    left_out: list[Column]
    notes: list[str]


class _Form(NamedTuple):
    """How numbers are written."""

    decimal: str
    thousands: str
    missing: frozenset[str]
    categories: int


class _Taken(NamedTuple):
    """A column of inputs: float64 with NaN where a value is missing, or text with NaN likewise."""

    name: str
    kind: Literal["number", "truth value", "category"]
    fields: Values
    notes: tuple[str, ...] = ()
    unit: str = ""  # what stands after the number in every value of a category


def table(
    *,
    path: Annotated[str, "the csv file, relative to the data folder or absolute"] = "table.csv",
    label: Annotated[str | None, "column of the labels; none: the last one"] = None,
    test: Annotated[
        float,
        Range(0, 1, low_open=True, high_open=True),
        "share of the distinct rows that are tested, with all copies",
    ] = 0.2,
    client: Annotated[
        str | None, "column that names the natural client of a row; no feature"
    ] = None,
    drop: Annotated[str | None, "columns to leave out, joined by +, e.g. row numbers"] = None,
    text: Annotated[
        str | None,
        "columns of codes, joined by +, that are categories though they look like numbers",
    ] = None,
    categories: Annotated[
        int,
        Range(1, 1000),
        "most values of a text column that get a feature of their own; rarer ones share one",
    ] = 20,
    header: Annotated[
        Literal["line"] | None, "none: the first line is data, and the columns are called c1, c2, …"
    ] = "line",
    skip: Annotated[int, Range(0, 1000), "lines to leave out at the start of the file"] = 0,
    separator: Annotated[
        Literal["comma", "semicolon", "tab", "bar"], "what stands between fields"
    ] = "comma",
    quotes: Annotated[bool, "quotation marks enclose fields; false: they are text"] = True,
    decimal: Annotated[Literal["point", "comma"], "mark before the fraction of a number"] = "point",
    thousands: Annotated[
        Literal["comma", "point", "blank", "apostrophe"] | None, "mark between thousands"
    ] = None,
    missing: Annotated[str | None, "more words that stand for a missing value, joined by +"] = None,
    encoding: Annotated[
        str, "of the text, e.g. cp1252 for files from older Windows programs"
    ] = "utf-8",
    seed: Annotated[
        int, Range(0, 2**31 - 1), "names the draw of the test part; not the seed of the experiment"
    ] = 0,
) -> Dataset:
    """A csv file as a dataset. Raises BadInput for an encoding that Python does not know and for
    two meanings of one mark.
    """
    file = File(path, None, HINT)
    _check_options(encoding, decimal, thousands)
    form = _Form(
        MARKS[decimal],
        MARKS.get(thousands or "", ""),
        frozenset(missing.split("+") if missing else ()),
        categories,
    )

    def load(folder: Path) -> Data:
        if not (folder / path).exists() and Path(path).is_file():
            raise BadInput(
                f"{folder / path} is missing, and {Path(path).resolve()} is there: paths are relative to the data folder;"
                " say --data-dir ., or name the file by its whole path"
            )
        place = locate_file(folder, file)
        with naming_file(place, HINT):
            content = text_of(
                place,
                encoding,
                hint="; name it: table(encoding=cp1252), as older Windows programs write, or another",
            )
        grid = _grid(
            content,
            place,
            skip=skip,
            header=header is not None,
            separator=SEPARATORS[separator],
            quotes=quotes,
        )
        wanted = grid.names[-1] if label is None else label
        dropped = _names(drop, grid.names, place)
        apart = [wanted, *([] if client is None else [client]), *dropped]
        _check_columns(grid.names, apart, place)
        as_text = set(_names(text, grid.names, place))
        fields = dict(zip(grid.names, grid.columns, strict=True))
        kept = np.array(
            [word != "" and word not in form.missing for word in fields[wanted]], dtype=np.bool_
        )
        where = _Place(place, grid.lines[kept])
        labels = _kept(fields[wanted], kept)
        y, known, said = _labels(labels, wanted, where)
        inputs = [
            _taken(name, _kept(column, kept), form, where, as_text=name in as_text)
            for name, column in fields.items()
            if name not in apart
        ]
        codes = torch.stack([torch.from_numpy(_codes(column.fields)) for column in inputs], dim=1)
        tested = held_out(codes, test, generator(seed, "table", "test"))
        _check_classes(known, y, tested.numpy(), place)
        own = None if client is None else _clients(_kept(fields[client], kept), client, form, where)
        x, columns = _features(inputs, ~tested.numpy(), categories, where)
        data = parted(
            torch.from_numpy(x), torch.from_numpy(y), tested, classes=len(known), client=own
        )
        copies, across = repeats(data.train.x, data.test.x)
        columns = [
            *columns,
            *(Column(name, "left out", 0, "named in drop") for name in dropped),
            *grid.left_out,
        ]
        notes = [
            *_with_units(inputs, columns),
            *grid.notes,
            *said,
            *_untested(known, y, tested.numpy()),
        ]
        notes += [note for column in inputs for note in (*column.notes, *_suspect(column, y))]
        notes += [
            f"column {column.name!r} is left out: {column.detail}"
            for column in columns
            if "float32" in column.detail
        ]
        counts = np.bincount(y, minlength=len(known)).tolist()
        found = Reading(
            source=path,
            rows=len(kept),
            dropped={"without a label": int((~kept).sum())} if not kept.all() else {},
            classes=dict(zip(known, counts, strict=True)),
            train=len(data.train.y),
            test=len(data.test.y),
            copies=copies,
            across=across,
            columns=tuple(columns),
            form=_summary(x.shape[1], columns),
            notes=tuple(notes),
        )
        return checked(data._replace(reading=found), "table")

    return Dataset(load=load, files=(file,))


class _Place(NamedTuple):
    """Where rows stand: the file and the line of each."""

    path: Path
    lines: npt.NDArray[np.int64]


def _kept(column: list[str], kept: npt.NDArray[np.bool_]) -> list[str]:
    return [field for field, keep in zip(column, kept, strict=True) if keep]


def _check_options(encoding: str, decimal: str, thousands: str | None) -> None:
    try:
        "".encode(encoding)
    except LookupError:
        known = [
            "utf-8",
            "utf-16",
            "cp1252",
            "latin-1",
            "cp1251",
            "cp932",
            "gb18030",
            "big5",
            "euc_kr",
        ]
        raise BadInput(
            f"dataset table: encoding={encoding!r} is not allowed; {nearest(encoding, known)}"
        ) from None
    if decimal == thousands:
        raise BadInput(
            f"dataset table: decimal and thousands are both {decimal}; one mark has one meaning"
        )


# -- the file as fields


def _grid(
    content: str, path: Path, *, skip: int, header: bool, separator: str, quotes: bool
) -> _Grid:
    """Names and columns. BadInput, with the line, where rows and names do not fit."""
    notes: list[str] = []
    told = re.match(r"sep=([,;|\t])(?:\r\n|\n|\r)", content)
    if told:
        separator, skip = told[1], max(skip, 1)
    rest = content
    for _ in range(skip):
        rest = re.split(r"\r\n|\n|\r", rest, maxsplit=1)[-1]
    _check_separator(rest, separator, path)
    try:
        rows = [
            (line + skip, fields) for line, fields in csv_records(rest, separator, quotes=quotes)
        ]
    except ValueError as error:
        how = _without_quotes(rest, separator) if quotes else ""
        # nothing else in it is a number
        said = re.sub(r"\d+", lambda number: str(int(number[0]) + skip), str(error))
        raise BadInput(f"{path}: {said}; correct it{how}") from None
    if len(rows) < 2:
        raise BadInput(f"{path} cannot be read: it has {len(rows)} rows; {HINT}")
    width = len(rows[0][1])
    if header:
        first, names = rows[0]
        rows = rows[1:]
    else:
        first, names = 0, [f"c{number}" for number in range(1, width + 1)]
    rows, names = _even(rows, names)
    _check_lengths(rows, names, first, path)
    columns = [list(column) for column in zip(*(fields for _, fields in rows), strict=True)]
    if header and _like_data(names, columns):
        notes.append(
            f"the header line looks like data ({', '.join(names[:4])}): if it is, table(header=none)"
        )
    elif names.count(names[-1]) > 1 and names[-1]:
        raise BadInput(
            f"{path}: line {first} names {names[-1]!r} twice, the column of the labels; {HINT}"
        )
    names, columns, left_out, more = _named(names, columns)
    lines = np.array([line for line, _ in rows], np.int64)
    if len(names) < 2:
        raise BadInput(
            f"{path} has {len(names)} column; a table has labels and at least one column of inputs; {HINT}"
        )
    return _Grid(names, columns, lines, left_out, [*notes, *more])


def _check_separator(content: str, separator: str, path: Path) -> None:
    """BadInput where the first two lines have another separator, equally often, and the first does
    not have this one.
    """
    first, second = ([line for line in content.splitlines() if line.strip()] + ["", ""])[:2]
    others = [
        name for name, mark in SEPARATORS.items() if first.count(mark) == second.count(mark) > 0
    ]
    if separator not in first and others:
        mark = {mark: name for name, mark in SEPARATORS.items()}[separator]
        raise BadInput(
            f"{path}: the first line has no {mark} between fields but {others[0]}s: table(separator={others[0]})"
        )


def _without_quotes(content: str, separator: str) -> str:
    """What to do where every line has as many fields when quotation marks are text."""
    counts = {line.count(separator) for line in content.splitlines() if line.strip()}
    return ", or take the marks as text: table(quotes=false)" if len(counts) == 1 else ""


def _even(
    rows: list[tuple[int, list[str]]], names: list[str]
) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Without the empty field after a separator at the end of every row, and of the header line
    where it has one.
    """
    width = len(names)
    while (
        width > 1
        and names[-1] == ""
        and all(len(fields) < width or fields[width - 1 :] == [""] for _, fields in rows)
    ):
        names, width = names[:-1], width - 1
        rows = [(line, fields[:width]) for line, fields in rows]
    if all(len(fields) == width + 1 and fields[-1] == "" for _, fields in rows):
        rows = [(line, fields[:-1]) for line, fields in rows]
    return rows, names


def _check_lengths(
    rows: list[tuple[int, list[str]]], names: list[str], first: int, path: Path
) -> None:
    width = len(names)
    other = [(line, len(fields)) for line, fields in rows if len(fields) != width]
    if not other:
        return
    line, count = other[0]
    says = "one field" if count == 1 else f"{count} fields"
    hint = "correct it"
    if len(other) == len(rows) and len({count for _, count in other}) == 1:
        hint = f"if the names come later, leave out what stands before them: table(skip={max(first, 1)})"
        if count == width + 1 and first:
            hint += "; if the first field names the row, give it a name"
    elif (line, len(other)) == (rows[-1][0], 1):
        hint = "it is the last one, so the file may be cut short"
    share = f"{len(other)} of {len(rows)} rows"
    raise BadInput(
        f"{path}: line {line} has {says}, and the first line of the table has {width}; {hint} ({share})"
    )


def _like_data(names: list[str], columns: list[list[str]]) -> bool:
    """Whether at least half of the names are numbers or stand among the values of their column."""
    return 2 * sum(
        _is_number(name) or (name != "" and name in column)
        for name, column in zip(names, columns, strict=True)
    ) >= len(names)


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _named(
    names: list[str], columns: list[list[str]]
) -> tuple[list[str], list[list[str]], list[Column], list[str]]:
    """Every column with a name of its own; those without a name that say nothing are left out."""
    found: list[str] = []
    kept: list[list[str]] = []
    left_out: list[Column] = []
    notes: list[str] = []
    for number, (name, column) in enumerate(zip(names, columns, strict=True), start=1):
        if not name and not any(column):
            left_out.append(Column(f"column {number}", "left out", 0, "no name, and empty"))
            continue
        if not name and _counts(_numbers_of(column)):
            left_out.append(
                Column(f"column {number}", "left out", 0, "no name, and counts the rows")
            )
            notes.append(f"column {number} has no name and counts the rows: left out")
            continue
        own = name or f"column {number}"
        if own in found:
            again = next(
                f"{own}.{k}"
                for k in range(1, len(names) + 1)
                if f"{own}.{k}" not in {*found, *names}
            )
            notes.append(f"the name {own!r} stands twice: column {number} is {again!r}")
            own = again
        elif not name:
            notes.append(f"column {number} has no name")
        found.append(own)
        kept.append(column)
    return found, kept, left_out, notes


def _numbers_of(column: Sequence[str]) -> npt.NDArray[np.float64]:
    """The column as numbers, empty where it holds anything else."""
    try:
        return np.array([float(word) for word in column])
    except ValueError:
        return np.empty(0)


def _counts(numbers: npt.NDArray[np.float64]) -> bool:
    """Whether the numbers, in any order, go up in equal steps."""
    steps = np.diff(np.sort(numbers))
    return len(numbers) >= ROWS and bool(
        steps[0] > 0 and (steps == steps[0]).all() and numbers[0] == round(numbers[0])
    )


def _names(joined: str | None, known: Sequence[str], path: Path) -> list[str]:
    """The columns in a text that joins their names by +, which may be part of a name. BadInput
    where one is not there.
    """
    if joined is None:
        return []

    def split(rest: str) -> Iterator[list[str]]:
        for name in sorted(known, key=len, reverse=True):
            if rest == name:
                yield [name]
            elif name and rest.startswith(f"{name}+"):
                yield from ([name, *others] for others in split(rest[len(name) + 1 :]))

    found = next(split(joined), None)
    if found is None:
        missing = next((name for name in joined.split("+") if name not in known), joined)
        raise BadInput(f"{path} has no column {missing!r}; {nearest(missing, known)}")
    return found


def _check_columns(names: Sequence[str], apart: list[str], path: Path) -> None:
    for name in apart:
        if name not in names:
            raise BadInput(
                f"{path} has no column {name!r}; {nearest(name, (' '.join(known.split()) for known in names))}"
            )
        if f"{name}.1" in names and name == apart[0]:
            raise BadInput(
                f"{path}: the header line names {name!r} twice, the column of the labels; {HINT}"
            )
        if apart.count(name) > 1:
            raise BadInput(
                f"{path}: column {name!r} is named twice; label (the last column if none), client and drop name different columns"
            )
    if len(apart) == len(names):
        raise BadInput(
            f"{path}: no column is left for the inputs; label, client and drop name all {len(apart)}"
        )


# -- columns


def _taken(name: str, column: list[str], form: _Form, where: _Place, *, as_text: bool) -> _Taken:
    """The column as numbers if all that is there are, as truth values likewise, else as text.
    BadInput where a few fields are no numbers.
    """
    import pandas as pd

    which, words = pd.factorize(np.array(column, dtype=object))
    rows = np.bincount(which, minlength=len(words))
    narrow = np.array([word in MISSING or word in form.missing for word in words], dtype=np.bool_)
    wide = narrow | np.array([word.lower() in MISSING_NUMBER for word in words], dtype=np.bool_)

    def spread(values: npt.NDArray[Any]) -> Values:
        return pd.Series(values[which], name=name)

    if not as_text:
        low = [word.lower() for word in words[~wide]]
        if set(low) <= set(TRUTH_TOO) and set(low) & set(TRUTH):
            return _Taken(
                name,
                "truth value",
                spread(np.array([TRUTH_TOO.get(word.lower(), np.nan) for word in words])),
            )
        numbers = _numbers(words, form)
        numbers[wide] = np.nan
        strange = ~wide & np.isnan(numbers)
        if not strange.any():
            return _number(name, spread(numbers), where)
        notes = _mixed(name, which, words, rows, strange, ~wide & ~strange, form, where)
    else:
        notes = ()
    unit = "" if as_text else _unit(words[~wide], form)
    text = words.astype(object)
    text[narrow] = np.nan
    if len(words) == len(column) and not unit:
        notes = (
            *notes,
            f"column {name!r} has another text in every row: it names the rows, leave it out with drop=",
        )
    return _Taken(name, "category", spread(text), notes, unit)


def _unit(words: npt.NDArray[Any], form: _Form) -> str:
    """What stands after the number in every word; nothing where it differs or a word is anything
    else.
    """
    found = [match for match in takewhile(bool, map(UNIT.fullmatch, words)) if match]
    units = {match[2] for match in found}
    if len(found) < len(words) or len(units) != 1:
        return ""
    numbers = _numbers(np.array([match[1] for match in found], dtype=object), form)
    return "" if np.isnan(numbers).any() else units.pop()


def _with_units(inputs: list[_Taken], columns: list[Column]) -> list[str]:
    """One note for all columns of numbers with a unit, so that the load's line has room for it."""
    # none is left out
    categories = {column.name for column in columns if column.kind == "category"}
    found = [taken for taken in inputs if taken.unit and taken.name in categories]
    each = [
        f"column {taken.name!r}: every value is a number with {taken.unit!r} after it; read as {taken.fields.nunique()} categories"
        for taken in found[:NAMED]
    ]
    if len(found) > NAMED:
        each.append(f"{len(found) - NAMED} more such columns")
    return ["; ".join(each)] * bool(each)


def _numbers(words: npt.NDArray[Any], form: _Form) -> npt.NDArray[np.float64]:
    """The words as numbers, NaN where they are none."""
    import pandas as pd

    if form.decimal != "." or form.thousands:
        grouped = re.compile(
            rf"([+-]?\d{{1,3}})((?:{re.escape(form.thousands or 'x')}\d{{3}})+)(?!\d)"
        )
        plain = []
        for word in words:
            joined = (
                grouped.sub(
                    lambda found: found[1] + found[2].replace(form.thousands, ""), word, count=1
                )
                if form.thousands
                else word
            )
            allowed = form.decimal == "." or "." not in joined
            plain.append(joined.replace(form.decimal, ".") if allowed else "no number")
        words = np.array(plain, dtype=object)
    found: npt.NDArray[np.float64] = (
        pd.to_numeric(pd.Series(words, dtype=object), errors="coerce").to_numpy(np.float64).copy()
    )
    return found


def _number(name: str, values: Values, where: _Place) -> _Taken:
    beyond = np.flatnonzero((values.abs() > LARGEST).to_numpy())
    if len(beyond):
        raise BadInput(
            f"{where.path}: column {name!r} holds infinity or numbers beyond ±{LARGEST:.2g} in line {where.lines[beyond[0]]}"
            f" ({len(beyond)} rows); correct them, name them in missing=…, or the column in drop=…"
        )
    known = values.dropna().to_numpy()
    notes = []
    if len(known) == len(values) and _counts(known):
        notes.append(
            f"column {name!r} counts the rows, which makes all of them distinct: leave it out with drop= if it says nothing"
        )
    different, kept = len(np.unique(known)), len(np.unique(known.astype(np.float32)))
    if kept < MOSTLY * different:
        notes.append(
            f"column {name!r}: {different} different numbers are {kept} in float32, which keeps seven digits"
        )
    return _Taken(name, "number", values, tuple(notes))


def _mixed(
    name: str,
    which: npt.NDArray[np.int64],
    words: npt.NDArray[Any],
    rows: npt.NDArray[np.int64],
    strange: npt.NDArray[np.bool_],
    plain: npt.NDArray[np.bool_],
    form: _Form,
    where: _Place,
) -> tuple[str, ...]:
    """What is to be said of a column of numbers and other fields. BadInput where the others are
    surely mistakes.
    """
    numbers, others = int(rows[plain].sum()), int(rows[strange].sum())
    first = np.flatnonzero(strange)[0]
    line = where.lines[np.argmax(which == first)]
    listed = f"{words[first]!r} in line {line}" + (
        f" and {others - 1} others" if others > 1 else ""
    )
    hints = [
        f"{option}=comma"
        for option, pattern in (("thousands", IN_THOUSANDS), ("decimal", WITH_COMMA))
        if 2
        * int(
            rows[
                [
                    bool(kind and pattern.fullmatch(word))
                    for word, kind in zip(words, strange, strict=True)
                ]
            ].sum()
        )
        >= others
    ]
    how = f"; they are numbers with {' or '.join(hints)}" if hints else ""
    if numbers >= MOSTLY * (numbers + others) and int(plain.sum()) > form.categories:
        raise BadInput(
            f"{where.path}: column {name!r} is {numbers} numbers and {listed}{how or '; correct them'}, name them in missing=…, "
            f"or take the column as text: text={name}"
        )
    if hints or numbers >= others:
        return (f"column {name!r} is taken as text: {numbers} numbers and {listed}{how}",)
    return ()


def _codes(column: Values) -> npt.NDArray[np.int64]:
    """The number of each field's value among the distinct values in sorted order; -1 where it is
    missing.
    """
    import pandas as pd

    return pd.factorize(column, sort=True)[0].astype(np.int64)


def _suspect(column: _Taken, y: npt.NDArray[np.int64]) -> list[str]:
    """Whether a column's values are the classes in other words."""
    codes, classes = _codes(column.fields) + 1, int(y.max()) + 1
    same = len(np.unique(codes)) == classes == len(np.unique(codes * classes + y))
    return [
        f"column {column.name!r} is the label in other words: every value goes with one class"
    ] * same


# -- labels and clients


def _ordered(words: Sequence[str]) -> list[str]:
    """The distinct words in order: as truth values or numbers where all are, else as text."""
    distinct = set(words)
    if {word.lower() for word in distinct} <= set(TRUTH):
        return sorted(distinct, key=lambda word: (TRUTH[word.lower()], word))
    if all(map(_is_number, distinct)):
        return sorted(distinct, key=lambda word: (float(word), word))
    return sorted(distinct)


def _labels(
    words: list[str], name: str, where: _Place
) -> tuple[npt.NDArray[np.int64], list[str], list[str]]:
    """The class of each row, the classes' names, and what is to be said of them."""
    said = f"{where.path}: label column {name!r}"
    if len(words) < ROWS:
        raise BadInput(f"{said} has {len(words)} labelled rows; there are at least {ROWS}")
    known = _ordered(words)
    classes, numbers = len(known), all(map(_is_number, known))
    if classes == len(words):
        raise BadInput(
            f"{said} has as many values as rows, {classes}, so it seems to name the rows; choose the labels with table(label=…)"
        )
    if not 2 <= classes <= CLASSES:
        raise BadInput(f"{said} has {classes} distinct values; there are 2 to {CLASSES} classes")
    if numbers and classes > QUANTITY[0] and len(words) < QUANTITY[1] * classes:
        raise BadInput(
            f"{said} has {classes} different numbers in {len(words)} rows, so it seems to be a quantity; classes have names"
        )
    number = {word: code for code, word in enumerate(known)}
    return (
        np.array([number[word] for word in words], np.int64),
        known,
        [*_alike(known), *_like_missing(words)],
    )


def _alike(known: list[str]) -> Iterator[str]:
    """Classes that may be one."""
    for what, key in (
        ("differ in case only", str.lower),
        ("are one number", lambda word: float(word) if _is_number(word) else word),
    ):
        together: dict[Any, list[str]] = {}
        for word in known:
            together.setdefault(key(word), []).append(word)
        for words in together.values():
            if len(words) > 1:
                yield f"classes {', '.join(map(repr, words[:-1]))} and {words[-1]!r} {what}"


def _like_missing(words: list[str]) -> Iterator[str]:
    for word, count in Counter(words).items():
        if word.lower() in MISSING_NUMBER:
            yield f"{word!r} is a class of {count} rows; if it means a missing label, missing={word}"


def _untested(
    known: list[str], y: npt.NDArray[np.int64], tested: npt.NDArray[np.bool_]
) -> list[str]:
    lacking = sorted(set(y[~tested].tolist()) - set(y[tested].tolist()))
    return [
        f"class {known[number]!r} has no test rows, {int((y == number).sum())} to train on"
        for number in lacking
    ]


def _check_classes(
    known: list[str], y: npt.NDArray[np.int64], tested: npt.NDArray[np.bool_], path: Path
) -> None:
    for number in sorted(set(y[tested].tolist()) - set(y[~tested].tolist())):
        raise BadInput(
            f"{path}: class {known[number]!r} has no training rows, its {int((y == number).sum())} rows are all test rows;"
            " choose another seed or a smaller test, or leave these rows out"
        )


def _clients(words: list[str], name: str, form: _Form, where: _Place) -> torch.Tensor:
    absent = [row for row, word in enumerate(words) if word in form.missing or word == ""]
    if absent:
        raise BadInput(
            f"{where.path}: client column {name!r} is empty in {len(absent)} rows, first in line {where.lines[absent[0]]};"
            " every row has a client"
        )
    number = {word: code for code, word in enumerate(_ordered(words))}
    return torch.tensor([number[word] for word in words], dtype=torch.int64)


# -- features


def _features(
    inputs: list[_Taken], train: npt.NDArray[np.bool_], categories: int, where: _Place
) -> tuple[npt.NDArray[np.float32], list[Column]]:
    """(N, F): the features of all columns, without those that have one single value in the training
    part; and what became of each column.
    """
    found: list[npt.NDArray[np.float32]] = []
    columns: list[Column] = []
    for column in inputs:
        values, absent = column.fields, int(column.fields.isna().sum())
        if column.kind == "category":
            made = _of_text(values, train, categories)
            detail = [f"{values.nunique()} values"]
            detail += [f"each a number with {column.unit!r} after it"] if column.unit else []
        else:
            known = values[train].dropna()
            made = [values.fillna(known.median() if len(known) else 0.0), values.isna()]
            detail = []
        features = [feature.to_numpy(np.float32) for feature in made]
        features = [feature for feature in features if (feature[train] != feature[train][0]).any()]
        found += features
        detail += [f"{absent} missing"] if absent else []
        kind: Literal["number", "truth value", "category", "left out"] = column.kind
        if not features:
            several = len(set(values[train].dropna())) > 1
            detail = (
                ["its numbers are one in float32"]
                if several
                else ["one single value in the training part"]
            )
            kind = "left out"
        columns.append(Column(column.name, kind, len(features), ", ".join(detail)))
    if not found:
        raise BadInput(
            f"{where.path}: no column of inputs has two different values in the training part"
        )
    return np.stack(found, axis=1), columns


def _of_text(column: Values, train: npt.NDArray[np.bool_], categories: int) -> list[Values]:
    """One feature for each of the most frequent values, and one for all others."""
    values = column.fillna("")  # no other value is empty
    counts = {str(value): int(count) for value, count in values[train].value_counts().items()}
    own = sorted(counts, key=lambda value: (-counts[value], value))[:categories]
    return [*(values == value for value in own), ~values.isin(own)]


def _summary(features: int, columns: list[Column]) -> str:
    """The columns by kind, e.g. ``5 features from 2 columns of numbers and 1 of categories, 1
    column left out``.
    """
    words = {"number": "numbers", "truth value": "truth values", "category": "categories"}
    counts = Counter[str](column.kind for column in columns)
    kinds = [f"{counts[kind]} of {words[kind]}" for kind in words if counts[kind]]
    left = [f"{column.name!r}" for column in columns if column.kind == "left out"]
    rest = f", left out {', '.join(left[:3])}{', …' if len(left) > 3 else ''}" if left else ""
    return f"{features} features from columns: {', '.join(kinds)}{rest}"
