"""Anyone's table: a csv file with a header line and a column of labels.

Numbers stay as they are, true and false become 1 and 0, any other column becomes one 0/1 feature for each of its values. Labels are the
distinct values of the label column in sorted order, numbers as numbers: 0, 1, …

Shapes: (N, F) float32; 2 to 1000 classes. The test part holds ``test`` of the distinct rows with all their copies, where two rows are equal if
all columns are that become features: equal rows are on one side, whatever their labels.

Source: no publication; the data are the user's own. On features for the values of a column and on missing values: M. Kuhn, K. Johnson,
"Feature Engineering and Selection", CRC Press, 2019, chapters 5 and 8.

Deviations: none. All that is learnt from data (values, medians, mean and std) is learnt from the training part. In detail:

- A column is numeric if all that is there reads as numbers, and of truth values if it is true or false in any case, in the
  training and in the test part; dates are text.
- A text column gets features for its most frequent values, ``categories`` at most, ties in alphabetical order. Rarer values, and those that only
  the test part has, share one more; where the training part has no rarer ones, those that only the test part has are 0 in all features.
- Missing are empty fields, ?, NA, N/A, NaN, nan, null and NULL. Among numbers they become the median, with a 0/1 feature "is missing" if the
  training part has some; among text they are a value of their own. Rows without a label are left out.
- A feature with one single value in the training part is left out.
- Numbers are kept to float32's seven digits, not clipped or transformed: the platform subtracts the mean and divides by the standard deviation.
- A column of row numbers makes all rows distinct, so that copies are no longer seen: drop it.

Files: ``path``, relative to the data folder or absolute; UTF-8, fields separated by commas. The id of a spec holds the path and the other
parameters, not the content of the file: who changes the file has to give it another name.

Example:
>>> table(path="adult.csv", label="income", drop="fnlwgt+education").files[0].path
'adult.csv'
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import torch

from backstop.platform.contract import Data, Dataset, File
from backstop.platform.intake import checked, locate, reading
from backstop.platform.params import BadInput, Range, nearest
from backstop.platform.seeds import generator
from backstop.platform.tables import held_out, parted

if TYPE_CHECKING:
    import pandas as pd

    Column = pd.Series[Any]

VERSION = 1
KINDS = ("table",)
HINT = "put a csv file there (UTF-8, fields separated by commas, a header line), or name another: table(path=…)"
MISSING = ["", "?", "NA", "N/A", "NaN", "nan", "null", "NULL"]
TRUTH = {"false": 0.0, "true": 1.0}
ROWS = 10  # a table has at least
CLASSES = 1000  # and at most
LARGEST = float(np.finfo(np.float32).max)


def table(
    *,
    path: Annotated[str, "the csv file, relative to the data folder or absolute"] = "table.csv",
    label: Annotated[str | None, "column of the labels; none: the last one"] = None,
    test: Annotated[float, Range(0, 1, low_open=True, high_open=True), "share of the distinct rows that are tested, with all copies"] = 0.2,
    client: Annotated[str | None, "column that names the natural client of a row; no feature"] = None,
    drop: Annotated[str | None, "columns to leave out, joined by +, e.g. row numbers"] = None,
    categories: Annotated[int, Range(1, 1000), "most values of a text column that get a feature of their own; rarer ones share one"] = 20,
    seed: Annotated[int, Range(0, 2**31 - 1), "names the draw of the test part; not the seed of the experiment"] = 0,
) -> Dataset:
    """A csv file as a dataset."""
    file = File(path, None, HINT)

    def load(folder: Path) -> Data:
        place = locate(folder, file)
        frame = _read(place)
        wanted = str(frame.columns[-1]) if label is None else label
        apart = [wanted, *([] if client is None else [client]), *([] if drop is None else drop.split("+"))]
        _check_columns(frame, apart, place)
        frame = frame[frame[wanted].notna()].reset_index(drop=True)
        y, classes = _labels(frame[wanted], place)
        inputs = [_parsed(frame[name]) for name in frame if name not in apart]
        codes = torch.stack([torch.from_numpy(_codes(column)) for column in inputs], dim=1)
        tested = held_out(codes, test, generator(seed, "table", "test"))
        _check_classes(frame[wanted], y, tested.numpy(), place)
        own = None if client is None else _clients(frame[client], place)
        x = _features(inputs, ~tested.numpy(), categories, place)
        data = parted(torch.from_numpy(x), torch.from_numpy(y), tested, classes=classes, client=own)
        return checked(data, "table")

    return Dataset(load=load, files=(file,))


def _read(path: Path) -> pd.DataFrame:
    """All fields as text, or missing."""
    import pandas as pd

    with reading(path, HINT):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=MISSING, skipinitialspace=True)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes fields too many for names of the rows
        raise BadInput(f"{path}: rows have more fields than the header line has names; {HINT}")
    if frame.shape[1] < 2:
        raise BadInput(f"{path} has 1 column; a table has labels and at least one column of inputs; {HINT}")
    return frame


def _check_columns(frame: pd.DataFrame, apart: list[str], path: Path) -> None:
    for name in apart:
        if name not in frame:
            raise BadInput(f"{path} has no column {name!r}; {nearest(name, (' '.join(known.split()) for known in map(str, frame)))}")
        if apart.count(name) > 1:
            raise BadInput(
                f"{path}: column {name!r} is named twice; label (the last column if none), client and drop name different columns"
            )
    if len(apart) == frame.shape[1]:
        raise BadInput(f"{path}: no column is left for the inputs; label, client and drop name all {len(apart)}")


def _parsed(column: Column) -> Column:
    """The column as float64 with NaN where a value is missing, if all others are numbers or all are truth values; else the text as it is."""
    import pandas as pd

    for numbers in (column.str.lower().map(TRUTH), pd.to_numeric(column, errors="coerce")):
        if numbers.notna().equals(column.notna()):
            return numbers.astype(np.float64)
    return column


def _codes(column: Column) -> npt.NDArray[np.int64]:
    """The number of each field's value among the distinct values in sorted order; -1 where it is missing."""
    import pandas as pd

    return pd.factorize(column, sort=True)[0].astype(np.int64)


def _labels(column: Column, path: Path) -> tuple[npt.NDArray[np.int64], int]:
    where = f"{path}: label column {column.name!r}"
    if len(column) < ROWS:
        raise BadInput(f"{where} has {len(column)} labelled rows; there are at least {ROWS}")
    y = _codes(_parsed(column))
    classes = int(y.max()) + 1
    if classes == len(column):
        raise BadInput(
            f"{where} has as many values as rows, {classes}, so it seems to name the rows; choose the labels with table(label=…)"
        )
    if not 2 <= classes <= CLASSES:
        raise BadInput(f"{where} has {classes} distinct values; there are 2 to {CLASSES} classes")
    return y, classes


def _check_classes(column: Column, y: npt.NDArray[np.int64], tested: npt.NDArray[np.bool_], path: Path) -> None:
    for number in sorted(set(y[tested]) - set(y[~tested])):
        first = int(np.argmax(y == number))
        raise BadInput(
            f"{path}: class {column[first]!r} has no training rows, its {int((y == number).sum())} rows are all test rows;"
            " choose another seed or a smaller test, or leave these rows out"
        )


def _clients(column: Column, path: Path) -> torch.Tensor:
    codes = _codes(_parsed(column))
    if codes.min() < 0:
        raise BadInput(f"{path}: client column {column.name!r} is empty in {int((codes < 0).sum())} rows; every row has a client")
    return torch.from_numpy(codes)


def _features(inputs: list[Column], train: npt.NDArray[np.bool_], categories: int, path: Path) -> npt.NDArray[np.float32]:
    """(N, F): the features of all columns, without those that have one single value in the training part."""
    found: list[npt.NDArray[np.float32]] = []
    for column in inputs:
        if column.dtype != np.float64:
            made = _of_text(column, train, categories)
        elif (column.abs() > LARGEST).any():
            raise BadInput(
                f"{path}: column {column.name!r} holds infinity or numbers beyond ±{LARGEST:.2g}; correct them, or name it in drop=…"
            )
        else:
            known = column[train].dropna()
            made = [column.fillna(known.median() if len(known) else 0.0), column.isna()]
        features = [feature.to_numpy(np.float32) for feature in made]
        found += [feature for feature in features if (feature[train] != feature[train][0]).any()]
    if not found:
        raise BadInput(f"{path}: no column of inputs has two different values in the training part")
    return np.stack(found, axis=1)


def _of_text(column: Column, train: npt.NDArray[np.bool_], categories: int) -> list[Column]:
    """One feature for each of the most frequent values, and one for all others."""
    values = column.fillna("")  # no other value is empty
    counts = values[train].value_counts().to_dict()
    own = sorted(counts, key=lambda value: (-counts[value], value))[:categories]
    return [*(values == value for value in own), ~values.isin(own)]
