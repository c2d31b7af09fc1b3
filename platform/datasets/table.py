"""Anyone's table: a csv file with a header line and a column of labels, or one for each client.

Numbers stay as they are, true and false become 1 and 0, any other column becomes one 0/1 feature
for each of its values. Labels are the distinct texts of the label column, in order as numbers where
all of them are, else as text: 0, 1, …

Shapes: (N, F) float32; 2 to 1000 classes. The test part holds ``test`` of the distinct rows with
all their copies, where two rows are equal if all columns are that become features: equal rows are
on one side, whatever their labels.

Source: no publication; the data are the user's own. On features for the values of a column and on
missing values: M. Kuhn, K. Johnson, "Feature Engineering and Selection", CRC Press, 2019, chapters
5 and 8 (remembered).

Deviations: none. All that is learned from data (values, medians, mean and std) is learned from the
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

Clients: the values of column ``client``, or, where ``path`` is a pattern such as
``clients/hospital_*.csv``, the files: all have the same columns, in any order, and are read as one
table; ``alpha=natural`` keeps its clients.

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

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch

from backstop.platform.contract import Column, Data, Dataset, File, Reading
from backstop.platform.intake.checks import checked
from backstop.platform.intake.columns import (
    NumberForm,
    RowLines,
    TakenColumn,
    codes_of,
    take_column,
)
from backstop.platform.intake.features import like_labels, make_features, summary, with_units
from backstop.platform.intake.files import naming_file, read_text
from backstop.platform.intake.grid import SEPARATORS, CsvLayout, Grid, read_grid
from backstop.platform.intake.labels import (
    Labels,
    Owners,
    check_trained,
    number_clients,
    read_clients,
    read_labels,
    untested,
)
from backstop.platform.intake.own_files import locate_own
from backstop.platform.intake.patterns import is_pattern
from backstop.platform.intake.per_client import Joined, join_files
from backstop.platform.intake.tables import held_out, parted, repeats
from backstop.platform.params import BadInput, Range, nearest
from backstop.platform.seeds import generator

VERSION = 2
KINDS = ("table",)
HINT = (
    "put a csv file there (UTF-8, fields separated by commas, a header line),"
    " or name another: table(path=…)"
)
MARKS = {
    "comma": ",",
    "point": ".",
    "blank": " ",
    "apostrophe": "'",
}
ENCODING_HINT = "; name it: table(encoding=cp1252), as older Windows programs write, or another"
ENCODINGS = ["utf-8", "utf-16", "cp1252", "latin-1", "cp1251", "cp932", "gb18030", "big5", "euc_kr"]


class _Roles(NamedTuple):
    """What the columns are for: all others are inputs."""

    label: str
    client: str | None
    dropped: list[str]
    text: set[str]  # inputs that are categories though they look like numbers

    @property
    def no_inputs(self) -> list[str]:
        return [self.label, *([] if self.client is None else [self.client]), *self.dropped]


class _Rows(NamedTuple):
    """The labeled rows of a file, and how many there were in all."""

    inputs: list[TakenColumn]
    labels: Labels
    owners: Owners | None
    source: RowLines
    total: int


def table(
    *,
    path: Annotated[
        str,
        "the csv file, relative to the data folder or absolute; clients/*.csv: one for each client",
    ] = "table.csv",
    label: Annotated[str | None, "column of the labels; none: the last one"] = None,
    test: Annotated[
        float,
        Range(0, 1, low_open=True, high_open=True),
        "share of the distinct rows that are tested, with all copies",
    ] = 0.2,
    client: Annotated[
        str | None,
        "column that names the natural client of a row; no feature; none: a pattern's files",
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
    """A csv file as a dataset.

    Raises BadInput for an encoding that Python does not know and for two meanings of one mark.
    """
    file = File(path, None, HINT)
    _check_options(encoding, decimal, thousands)
    layout = CsvLayout(SEPARATORS[separator], header is not None, quotes, skip)
    words = frozenset(missing.split("+") if missing else ())
    form = NumberForm(MARKS[decimal], MARKS.get(thousands or "", ""), words, categories)

    def load(folder: Path) -> Data:
        def read(located: Path) -> Grid:
            with naming_file(located, HINT):
                content = read_text(located, encoding, hint=ENCODING_HINT)
            return read_grid(content, located, layout, HINT)

        paths, located = locate_own(folder, file), folder / path
        joined = None
        if is_pattern(located):
            joined = join_files(paths, read)
        grid = read(located) if joined is None else joined.grid
        roles = _Roles(
            grid.names[-1] if label is None else label,
            client,
            _names(drop, grid.names, located),
            set(_names(text, grid.names, located)),
        )
        _check_columns(grid.names, roles.no_inputs, located)
        rows = _rows(grid, roles, form, located, joined)
        tested = held_out(_codes(rows.inputs), test, generator(seed, "table", "test"))
        check_trained(rows.labels, tested.numpy(), located)
        x, columns = make_features(rows.inputs, ~tested.numpy(), categories, rows.source)
        data = parted(
            torch.from_numpy(x),
            torch.from_numpy(rows.labels.y),
            tested,
            classes=len(rows.labels.classes),
            client=None if rows.owners is None else rows.owners.client,
        )
        dropped = [Column(name, "left out", 0, "named in drop") for name in roles.dropped]
        reading = _reading(rows, data, [*columns, *dropped, *grid.left_out])
        notes = _notes(rows, tested, reading.columns, grid.notes)
        return checked(data._replace(reading=reading._replace(source=path, notes=notes)), "table")

    return Dataset(load=load, files=(file,))


def _check_options(
    encoding: str,
    decimal: str,
    thousands: str | None,
) -> None:
    try:
        "".encode(encoding)
    except LookupError:
        raise BadInput(
            f"dataset table: encoding={encoding!r} is not allowed; {nearest(encoding, ENCODINGS)}"
        ) from None
    if decimal == thousands:
        raise BadInput(
            f"dataset table: decimal and thousands are both {decimal}; one mark has one meaning"
        )


def _names(
    joined: str | None,
    known: Sequence[str],
    path: Path,
) -> list[str]:
    """The columns in a text that joins their names by +, which may be part of a name.

    BadInput where one is not there.
    """
    if joined is None:
        return []

    def split(rest: str) -> Iterator[list[str]]:
        for name in sorted(known, key=len, reverse=True):
            if rest == name:
                yield [name]
            elif name and rest.startswith(f"{name}+"):
                yield from ([name, *others] for others in split(rest[len(name) + 1 :]))

    names = next(split(joined), None)
    if names is None:
        missing = next((name for name in joined.split("+") if name not in known), joined)
        raise BadInput(f"{path} has no column {missing!r}; {nearest(missing, known)}")
    return names


def _check_columns(
    names: Sequence[str],
    apart: Sequence[str],
    path: Path,
) -> None:
    """Raise BadInput unless the columns that are no inputs are there, and different ones."""
    for name in apart:
        if name not in names:
            hint = nearest(name, (" ".join(known.split()) for known in names))
            raise BadInput(f"{path} has no column {name!r}; {hint}")
        if f"{name}.1" in names and name == apart[0]:
            raise BadInput(
                f"{path}: the header line names {name!r} twice, the column of the labels; {HINT}"
            )
        if apart.count(name) > 1:
            raise BadInput(
                f"{path}: column {name!r} is named twice;"
                " label (the last column if none), client and drop name different columns"
            )
    if len(apart) == len(names):
        raise BadInput(
            f"{path}: no column is left for the inputs;"
            f" label, client and drop name all {len(apart)}"
        )


def _rows(
    grid: Grid,
    roles: _Roles,
    form: NumberForm,
    path: Path,
    joined: Joined | None,
) -> _Rows:
    """The rows that have a label, column by column."""
    fields = dict(zip(grid.names, grid.columns, strict=True))
    absent = {"", *form.missing}
    labeled = np.array([word not in absent for word in fields[roles.label]], dtype=np.bool_)
    source = RowLines(path, grid.lines[labeled])

    def of_labeled(column: list[str]) -> list[str]:
        return [field for field, keep in zip(column, labeled, strict=True) if keep]

    def kept(name: str) -> list[str]:
        return of_labeled(fields[name])

    labels = read_labels(kept(roles.label), roles.label, source)
    inputs = [
        take_column(name, kept(name), form, source, as_text=name in roles.text)
        for name in fields
        if name not in roles.no_inputs
    ]
    owners = None
    if roles.client is not None:
        owners = read_clients(kept(roles.client), roles.client, form.missing, source)
    elif joined is not None:
        owners = number_clients(of_labeled(joined.owner), joined.clients)
    return _Rows(inputs, labels, owners, source, len(labeled))


def _codes(inputs: Sequence[TakenColumn]) -> torch.Tensor:
    """(N, F) int64: equal rows have equal codes."""
    codes = [torch.from_numpy(codes_of(taken.fields)) for taken in inputs]
    return torch.stack(codes, dim=1)


def _reading(
    rows: _Rows,
    data: Data,
    columns: list[Column],
) -> Reading:
    """What became of the file."""
    copies, across = repeats(data.train.x, data.test.x)
    unlabeled = rows.total - len(rows.labels.y)
    return Reading(
        source="",
        rows=rows.total,
        dropped={"without a label": unlabeled} if unlabeled else {},
        classes=_class_counts(rows.labels),
        train=len(data.train.y),
        test=len(data.test.y),
        copies=copies,
        across=across,
        columns=tuple(columns),
        form=summary(data.train.x.shape[1], columns),
        clients=() if rows.owners is None else rows.owners.names,
    )


def _class_counts(labels: Labels) -> dict[str, int]:
    """How many rows each class has."""
    counts = np.bincount(labels.y, minlength=len(labels.classes))
    return dict(zip(labels.classes, counts.tolist(), strict=True))


def _notes(
    rows: _Rows,
    tested: torch.Tensor,
    columns: Sequence[Column],
    of_grid: Sequence[str],
) -> tuple[str, ...]:
    """What may not be meant, in the order in which it is said."""
    notes = [*with_units(rows.inputs, columns), *of_grid, *rows.labels.notes]
    notes += untested(rows.labels, tested.numpy())
    for taken in rows.inputs:
        notes += [*taken.notes, *like_labels(taken, rows.labels.y)]
    notes += [
        f"column {column.name!r} is left out: {column.detail}"
        for column in columns
        if "float32" in column.detail
    ]
    return tuple(notes)
