"""A csv text as named columns of fields, each row with the line in which it begins."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backstop.platform.contract import Column
from backstop.platform.intake.files import csv_records
from backstop.platform.params import BadInput

SEPARATORS: Mapping[str, str] = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "bar": "|",
}
LEAST_ROWS = 10  # that a table has
LINE_END = r"\r\n|\n|\r"
SEPARATOR_LINE = re.compile(rf"sep=([,;|\t])(?:{LINE_END})")  # the first line of some programs

CsvRow = tuple[int, list[str]]  # the line in which it begins, and its fields


class CsvLayout(NamedTuple):
    """How a csv text is laid out."""

    separator: str = ","
    header: bool = True  # whether the first line names the columns
    quotes: bool = True  # whether quotation marks enclose fields
    skip: int = 0  # lines to leave out at the start


class Grid(NamedTuple):
    """The fields of a csv text, and what became of its columns on the way."""

    names: list[str]
    columns: list[list[str]]
    lines: npt.NDArray[Any]  # the line in which each row begins
    left_out: list[Column]
    notes: list[str]


def read_grid(
    content: str,
    path: Path,
    layout: CsvLayout,
    hint: str,
) -> Grid:
    """Names and columns. BadInput, with the line, where rows and names do not fit."""
    layout = _as_declared(content, layout)
    body = _without_lines(content, layout.skip)
    _check_separator(body, layout.separator, path)
    rows = _records(body, path, layout)
    if len(rows) < 2:
        raise BadInput(f"{path} cannot be read: it has {len(rows)} rows; {hint}")
    header_line, names, rows = _header(rows, layout)
    rows, names = _without_last_separator(rows, names)
    _check_lengths(rows, len(names), header_line, path)
    grid = _columns(names, rows)
    if layout.header and _like_data(names, grid.columns):
        listed = ", ".join(names[:4])
        grid.notes.append(
            f"the header line looks like data ({listed}): if it is, table(header=none)"
        )
    elif names[-1] and names.count(names[-1]) > 1:
        raise BadInput(
            f"{path}: line {header_line} names {names[-1]!r} twice,"
            f" the column of the labels; {hint}"
        )
    grid = _named(grid)
    if len(grid.names) < 2:
        raise BadInput(
            f"{path} has {len(grid.names)} column;"
            f" a table has labels and at least one column of inputs; {hint}"
        )
    return grid


def _as_declared(content: str, layout: CsvLayout) -> CsvLayout:
    """The layout with the separator that the first line declares, where it does."""
    declared = SEPARATOR_LINE.match(content)
    if not declared:
        return layout
    skip = max(layout.skip, 1)
    return layout._replace(separator=declared[1], skip=skip)


def _without_lines(content: str, count: int) -> str:
    """What follows the first lines."""
    for _ in range(count):
        content = re.split(LINE_END, content, maxsplit=1)[-1]
    return content


def _columns(names: list[str], rows: list[CsvRow]) -> Grid:
    """The rows, all of one length, column by column."""
    fields = [row for _, row in rows]
    lines = [line for line, _ in rows]
    columns = [list(column) for column in zip(*fields, strict=True)]
    return Grid(names, columns, np.array(lines, np.int64), [], [])


def _records(
    body: str,
    path: Path,
    layout: CsvLayout,
) -> list[CsvRow]:
    skip = layout.skip
    try:
        records = csv_records(body, layout.separator, quotes=layout.quotes)
        return [(line + skip, fields) for line, fields in records]
    except ValueError as error:
        problem = _with_later_lines(str(error), skip)
        remedy = _without_quotes(body, layout.separator) if layout.quotes else ""
        raise BadInput(f"{path}: {problem}; correct it{remedy}") from None


def _with_later_lines(problem: str, skip: int) -> str:
    """A message with its line numbers counted from the start of the file."""
    # nothing else in the message is a number
    return re.sub(r"\d+", lambda line: str(int(line[0]) + skip), problem)


def _header(rows: list[CsvRow], layout: CsvLayout) -> tuple[int, list[str], list[CsvRow]]:
    """The line of the header, 0 where there is none; the names; the other rows."""
    header_line, first = rows[0]
    if layout.header:
        return header_line, first, rows[1:]
    names = [f"c{position}" for position in range(1, len(first) + 1)]
    return 0, names, rows


def _check_separator(
    body: str,
    separator: str,
    path: Path,
) -> None:
    """BadInput where the first two lines have another separator, equally often, and the first does
    not have this one.
    """
    first, second = _first_lines(body)
    if separator in first:
        return
    expected = next(name for name, mark in SEPARATORS.items() if mark == separator)
    for name, mark in SEPARATORS.items():
        if first.count(mark) == second.count(mark) > 0:
            raise BadInput(
                f"{path}: the first line has no {expected} between fields but {name}s:"
                f" table(separator={name})"
            )


def _first_lines(body: str) -> tuple[str, str]:
    """The first two lines that are not blank; empty ones where there are fewer."""
    first, second, *_ = [*_filled_lines(body), "", ""]
    return first, second


def _without_quotes(body: str, separator: str) -> str:
    """What to do where every line has as many fields when quotation marks are text."""
    lines = _filled_lines(body)
    counts = {line.count(separator) for line in lines}
    return ", or take the marks as text: table(quotes=false)" if len(counts) == 1 else ""


def _filled_lines(body: str) -> list[str]:
    return [line for line in body.splitlines() if line.strip()]


def _without_last_separator(
    rows: list[CsvRow],
    names: list[str],
) -> tuple[list[CsvRow], list[str]]:
    """Without the empty field after a separator at the end of every row, and of the header line
    where it has one.
    """
    width = len(names)
    while width > 1 and names[-1] == "" and _all_end_at(rows, width):
        names, width = names[:-1], width - 1
        rows = _first_fields(rows, width)
    if all(fields[width:] == [""] for _, fields in rows):
        rows = _first_fields(rows, width)
    return rows, names


def _first_fields(rows: list[CsvRow], width: int) -> list[CsvRow]:
    """Every row without the fields after the first ``width``."""
    return [(line, fields[:width]) for line, fields in rows]


def _all_end_at(rows: list[CsvRow], width: int) -> bool:
    return all(_ends_at(fields, width) for _, fields in rows)


def _ends_at(fields: list[str], width: int) -> bool:
    """Whether the last of ``width`` fields is missing, or empty and followed by no other."""
    return len(fields) < width or fields[width - 1 :] == [""]


def _check_lengths(
    rows: list[CsvRow],
    width: int,
    header_line: int,
    path: Path,
) -> None:
    uneven = [(line, len(fields)) for line, fields in rows if len(fields) != width]
    if not uneven:
        return
    line, count = uneven[0]
    counts = {count for _, count in uneven}
    last_line, _ = rows[-1]
    hint = "correct it"
    if len(uneven) == len(rows) and len(counts) == 1:
        hint = _names_hint(header_line, count - width)
    elif len(uneven) == 1 and line == last_line:
        hint = "it is the last one, so the file may be cut short"
    fields = "one field" if count == 1 else f"{count} fields"
    raise BadInput(
        f"{path}: line {line} has {fields}, and the first line of the table has {width};"
        f" {hint} ({len(uneven)} of {len(rows)} rows)"
    )


def _names_hint(header_line: int, more: int) -> str:
    """What to do where all rows have so many fields more than there are names."""
    lines = max(header_line, 1)
    hint = f"if the names come later, leave out what stands before them: table(skip={lines})"
    if more == 1 and header_line:
        hint += "; if the first field names the row, give it a name"
    return hint


def _like_data(names: list[str], columns: list[list[str]]) -> bool:
    """Whether at least half of the names are numbers or stand among the values of their column."""
    alike = sum(map(_like_value, names, columns))
    return 2 * alike >= len(names)


def _like_value(name: str, column: list[str]) -> bool:
    if is_number(name):
        return True
    return name != "" and name in column


def _named(grid: Grid) -> Grid:
    """Every column with a name of its own; those without a name that say nothing are left out."""
    kept = Grid(
        names=[],
        columns=[],
        lines=grid.lines,
        left_out=[],
        notes=[*grid.notes],
    )
    named = zip(grid.names, grid.columns, strict=True)
    for index, (name, column) in enumerate(named, start=1):
        position = f"column {index}"
        nothing = "" if name else _says_nothing(column)
        if nothing:
            _leave_out(kept, position, nothing)
            continue
        own = name or position
        if own in kept.names:
            other = _other_name(own, {*kept.names, *grid.names})
            kept.notes.append(f"the name {own!r} stands twice: {position} is {other!r}")
            own = other
        elif not name:
            kept.notes.append(f"{position} has no name")
        kept.names.append(own)
        kept.columns.append(column)
    return kept


def _leave_out(
    grid: Grid,
    position: str,
    nothing: str,
) -> None:
    """Record that a column without a name says nothing; an empty one is not worth a note."""
    detail = f"no name, and {nothing}"
    grid.left_out.append(Column(position, "left out", 0, detail))
    if nothing != "empty":
        grid.notes.append(f"{position} has no name and {nothing}: left out")


def _says_nothing(column: list[str]) -> str:
    """Why a column without a name is of no use; empty where it may be."""
    if not any(column):
        return "empty"
    return "counts the rows" if counts_rows(_numbers(column)) else ""


def _other_name(name: str, taken: set[str]) -> str:
    others = (f"{name}.{count}" for count in range(1, len(taken) + 2))
    return next(other for other in others if other not in taken)


def is_number(word: str) -> bool:
    """Whether a word reads as a finite number."""
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _numbers(column: Sequence[str]) -> npt.NDArray[np.float64]:
    """The column as numbers, empty where it holds anything else."""
    try:
        return np.array([float(word) for word in column])
    except ValueError:
        return np.empty(0)


def counts_rows(numbers: npt.NDArray[np.float64]) -> bool:
    """Whether the numbers, in any order, go up in equal steps from a whole one.

    >>> counts_rows(np.arange(12.0)), counts_rows(np.arange(12.0) ** 2)
    (True, False)
    """
    if len(numbers) < LEAST_ROWS:
        return False
    steps = np.diff(np.sort(numbers))
    equal = steps[0] > 0 and (steps == steps[0]).all()
    return bool(equal and numbers[0] == round(numbers[0]))
