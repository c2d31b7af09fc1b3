"""Files as people have them: what is read is what was meant, or it is refused, or it is said. The
files are in tests/cases.
"""

from __future__ import annotations

import bz2
import json
import lzma
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from backstop.platform import cli, plugins
from backstop.platform.contract import Data, Part, Reading, Spec
from backstop.platform.intake import readings
from backstop.platform.intake.files import read_text
from backstop.platform.params import BadInput
from backstop.platform.results.tracking.description import TAG_LIMIT, run_tags
from backstop.platform.rounds.origin import Origin
from backstop.platform.specs.part import complete_part, parse_part
from backstop.platform.training import loading

CASES = Path(__file__).parent / "cases"
TABLES, TWEETS = CASES / "tables", CASES / "tweets"
HALVES = {"ATTACK": 120, "BENIGN": 120}
GOOD = (TABLES / "good.csv").read_text()


def load(
    path: Path | str, folder: Path = TABLES, dataset: str = "table", **params: Any
) -> tuple[Data, Reading]:
    given = {"path": str(path), **params} if dataset == "table" else params
    data: Data = plugins.build("datasets", dataset, given).load(folder)
    assert data.reading is not None
    return data, data.reading


def kinds(found: Reading) -> dict[str, int]:
    """Columns by kind."""
    every = [column.kind for column in found.columns]
    return {kind: every.count(kind) for kind in sorted(set(every))}


# -- tables that are read: file, parameters, classes, columns by kind, features, what is said


@pytest.mark.parametrize(
    ("file", "params", "classes", "columns", "features", "said"),
    [
        ("good.csv", {}, HALVES, {"category": 1, "number": 2}, 5, ()),
        (
            "bom_crlf.csv",
            {"drop": "dur"},
            HALVES,
            {"category": 1, "number": 1, "left out": 1},
            4,
            (),
        ),
        ("bom_label_first.csv", {"label": "Label"}, {"0": 120, "1": 120}, {"number": 2}, 2, ()),
        ("blank_lines.csv", {}, HALVES, {"category": 1, "number": 2}, 5, ()),
        ("mac.csv", {}, HALVES, {"category": 1, "number": 2}, 5, ()),
        ("good.csv.gz", {}, HALVES, {"category": 1, "number": 2}, 5, ()),
        ("gz_named.csv", {}, HALVES, {"category": 1, "number": 2}, 5, ()),
        ("good.zip", {}, HALVES, {"category": 1, "number": 2}, 5, ()),
        # the other file is the system's own
        ("two.zip", {}, HALVES, {"category": 1, "number": 2}, 5, ()),
        ("utf16.csv", {}, HALVES, {"category": 1, "number": 2}, 5, ()),
        ("sepline.csv", {}, HALVES, {"category": 1, "number": 2}, 5, ()),
        ("comment.csv", {"skip": 1}, HALVES, {"category": 1, "number": 2}, 5, ()),
        ("trailing_both.csv", {}, HALVES, {"category": 1, "number": 2}, 5, ()),
        ("trailing_data.csv", {}, HALVES, {"category": 1, "number": 2}, 5, ()),
        ("tabs.csv", {"separator": "tab"}, HALVES, {"category": 1, "number": 2}, 5, ()),
        ("stray_dash.csv", {}, HALVES, {"category": 1, "number": 2}, 6, ()),
        ("stray_na_low.csv", {}, HALVES, {"category": 1, "number": 2}, 6, ()),
        ("stray_hashna.csv", {}, HALVES, {"category": 1, "number": 2}, 6, ()),
        ("stray_lt.csv", {"missing": "<0.01"}, HALVES, {"category": 1, "number": 2}, 6, ()),
        ("stray_pct.csv", {"text": "dur"}, HALVES, {"category": 2, "number": 1}, 25, ()),
        ("semicolon.csv", {"separator": "semicolon"}, {"0": 120, "1": 120}, {"number": 2}, 2, ()),
        (
            "semicolon_deccomma.csv",
            {"separator": "semicolon", "decimal": "comma"},
            {"0": 120, "1": 120},
            {"number": 2},
            2,
            (),
        ),
        ("comma_deccomma.csv", {"decimal": "comma"}, {"0": 120, "1": 120}, {"number": 2}, 2, ()),
        (
            "comma_deccomma.csv",
            {},
            {"0": 120, "1": 120},
            {"category": 2},
            42,
            (
                (
                    r"column 'acid' is taken as text: 0 numbers and '3,94' in line 2 and 239 "
                    r"others; they are numbers with decimal=comma"
                ),
                r"column 'sugar' is taken as text",
            ),
        ),
        ("thousands.csv", {"thousands": "comma"}, {"0": 120, "1": 120}, {"number": 2}, 2, ()),
        (
            "thousands.csv",
            {},
            {"0": 120, "1": 120},
            {"category": 1, "number": 1},
            22,
            (
                (
                    r"column 'income' is taken as text: 3 numbers and '3,940' in line 2 .* numbers "
                    r"with thousands=comma"
                ),
            ),
        ),
        ("quotes.csv", {"quotes": False}, HALVES, {"category": 1, "number": 2}, 6, ()),
        ("quote_open.csv", {"quotes": False}, HALVES, {"category": 1, "number": 2}, 6, ()),
        (
            "label_NA.csv",
            {},
            {"AS": 80, "EU": 80, "NA": 80},
            {"number": 2},
            2,
            (r"'NA' is a class of 80 rows; if it means a missing label, missing=NA",),
        ),
        (
            "label_zeros.csv",
            {},
            {"01": 60, "1": 60, "1.0": 60, "10": 60},
            {"number": 2},
            2,
            (r"classes '01', '1' and '1.0' are one number",),
        ),
        ("label_blank.csv", {}, {"no": 120, "yes": 120}, {"category": 1, "number": 2}, 5, ()),
        (
            "label_case.csv",
            {},
            {"No": 120, "Yes": 96, "yes": 24},
            {"category": 1, "number": 2},
            5,
            (r"classes 'Yes' and 'yes' differ in case only",),
        ),
        (
            "one_of_class.csv",
            {},
            {**HALVES, "RARE": 1},
            {"category": 1, "number": 2},
            5,
            (r"class 'RARE' has no test rows, 1 to train on",),
        ),
        (
            "rownumber.csv",
            {},
            {"0": 120, "1": 120},
            {"left out": 1, "number": 2},
            2,
            (r"column 1 has no name and counts the rows",),
        ),
        (
            "timestamps.csv",
            {},
            {"0": 120, "1": 120},
            {"number": 2},
            2,
            (r"column 't' counts the rows", r"column 't': 240 different numbers are 3 in float32"),
        ),
        ("truth_mixed.csv", {}, {"0": 120, "1": 120}, {"number": 1, "truth value": 1}, 2, ()),
        (
            "nohead.csv",
            {},
            {"0": 119, "1": 120},
            {"number": 3},
            3,
            (
                (
                    r"the header line looks like data \(3.94, 7.21, 0, 0\): if it is, "
                    r"table\(header=none\)"
                ),
                r"the name '0' stands twice",
            ),
        ),
        ("nohead.csv", {"header": None}, {"0": 120, "1": 120}, {"number": 3}, 3, ()),
        (
            "adult_nohead.csv",
            {},
            {"<=50K": 123, ">50K": 76},
            {"category": 2, "number": 2},
            8,
            (r"the header line looks like data \(25, Bachelors, 46, Female\)",),
        ),
        (
            "adult_nohead.csv",
            {"header": None, "label": "c5"},
            {"<=50K": 124, ">50K": 76},
            {"category": 2, "number": 2},
            8,
            (),
        ),
        (
            "adult_test_first_line.csv",
            {"skip": 1, "header": None},
            {"<=50K.": 124, ">50K.": 76},
            {"category": 2, "number": 2},
            8,
            (),
        ),
        (
            "cic_noinf.csv",
            {},
            {"BENIGN": 120, "Web Attack - Brute Force": 120},
            {"number": 6},
            7,
            (r"the name 'Fwd Header Length' stands twice: column 6 is 'Fwd Header Length.1'",),
        ),
        (
            "cic_inf.csv",
            {"missing": "Infinity"},
            {"BENIGN": 120, "Web Attack - Brute Force": 120},
            {"number": 6},
            7,
            None,
        ),
        (
            "cic_cp1252.csv",
            {"encoding": "cp1252", "drop": "Flow Bytes/s"},
            {"BENIGN": 120, "Web Attack – Brute Force": 120},
            {"left out": 1, "number": 5},
            5,
            None,
        ),
        (
            "telco.csv",
            {},
            {"No": 203, "Yes": 37},
            {"category": 1, "number": 3},
            25,
            (r"column 'customerID' has another text in every row: it names the rows",),
        ),
        (
            "telco.csv",
            {"drop": "customerID"},
            {"No": 203, "Yes": 37},
            {"left out": 1, "number": 3},
            4,
            (),
        ),
        ("plus.csv", {}, {"0": 30, "1": 30}, {"number": 2}, 2, ()),
        ("plus.csv", {"drop": "CD4+"}, {"0": 30, "1": 30}, {"left out": 1, "number": 1}, 1, ()),
        ("client_zeros.csv", {"client": "site"}, {"0": 120, "1": 120}, {"number": 2}, 2, ()),
    ],
)
def test_tables_that_are_read(
    file: str,
    params: Mapping[str, Any],
    classes: Mapping[str, int],
    columns: Mapping[str, int],
    features: int,
    said: tuple[str, ...] | None,
) -> None:
    data, found = load(file, **params)
    assert dict(found.classes) == classes and list(found.classes) == list(classes)
    assert kinds(found) == dict(sorted(columns.items())) and data.train.x.shape[1] == features
    assert found.rows == sum(classes.values()) and not found.dropped
    assert (found.train, found.test) == (
        len(data.train.y),
        len(data.test.y),
    ) and found.train + found.test == found.rows
    assert sum(column.features for column in found.columns) == features
    if said is not None:
        assert len(found.notes) == len(said), found.notes
        for note, pattern in zip(found.notes, said, strict=True):
            assert re.search(pattern, note)
            assert note in "\n".join(readings.sheet(found))
    assert "\n" not in readings.line(found) and readings.line(found).startswith(
        f"read {file}: {found.rows} rows, none dropped; "
    )


def test_the_same_rows_in_every_wrapping_are_the_same_data() -> None:
    same = [
        "bom_crlf",
        "blank_lines",
        "mac",
        "gz_named",
        "utf16",
        "sepline",
        "trailing_both",
        "trailing_data",
    ]
    good, _ = load("good.csv")
    others = [load(f"{name}.csv")[0] for name in same] + [
        load("two.zip")[0],
        load("tabs.csv", separator="tab")[0],
    ]
    assert all(
        torch.equal(other.train.x, good.train.x) and torch.equal(other.test.y, good.test.y)
        for other in others
    )
    points, commas = (
        load("semicolon.csv", separator="semicolon")[0],
        load("semicolon_deccomma.csv", separator="semicolon", decimal="comma")[0],
    )
    assert torch.equal(points.train.x, commas.train.x)


@pytest.mark.parametrize(
    ("file", "params", "message"),
    [
        ("label_twice.csv", {}, r": line 1 names 'Label' twice, the column of the labels;"),
        ("label_twice.csv", {"label": "Label"}, r": line 1 names 'Label' twice"),
        (
            "stray_lt.csv",
            {},
            (
                r": column 'dur' is 239 numbers and '<0.01' in line 101; correct them, "
                r".*missing=…, .* text=dur$"
            ),
        ),
        ("stray_pct.csv", {}, r": column 'dur' is 239 numbers and '12%' in line 101;"),
        (
            "quotes.csv",
            {},
            (
                r": lines 51 to 111: text goes on after a closing quotation mark; "
                r".*table\(quotes=false\)$"
            ),
        ),
        (
            "quote_open.csv",
            {},
            r": lines 51 to 241: a quotation mark is not closed; .*table\(quotes=false\)$",
        ),
        (
            "short_rows.csv",
            {},
            r": line 10 has 2 fields, and the first line of the table has 4; .*24 of 240 rows",
        ),
        (
            "cut.csv",
            {},
            (
                r": line 120 has one field, and the first line of the table has 4; it is the last "
                r"one, so the file may be cut short"
            ),
        ),
        (
            "comment.csv",
            {},
            r": line 2 has 4 fields, and the first line of the table has 2; .*table\(skip=1\)",
        ),
        (
            "adult_test_first_line.csv",
            {},
            r": line 2 has 5 fields, and the first line of the table has 1; .*table\(skip=1\)",
        ),
        (
            "semicolon.csv",
            {},
            (
                r": the first line has no comma between fields but semicolons: "
                r"table\(separator=semicolon\)"
            ),
        ),
        ("semicolon_deccomma.csv", {}, r"table\(separator=semicolon\)"),
        ("tabs.csv", {}, r"table\(separator=tab\)"),
        (
            "cic_inf.csv",
            {},
            (
                r": column 'Flow Bytes/s' holds infinity or numbers beyond ±3.4e\+38 in line 5 \(6 "
                r"rows\);"
            ),
        ),
        (
            "cic_cp1252.csv",
            {},
            r": line 122 holds the byte 0x96, which is no UTF-8; name it: table\(encoding=cp1252\)",
        ),
        ("nul.csv", {}, r": line 104 holds a zero byte"),
        (
            "lfs.csv",
            {},
            r" is a Git LFS pointer, not the file itself; fetch it with git lfs pull",
        ),
        ("page.csv", {}, r" is a web page, not the file itself"),
        (
            "excel.csv",
            {},
            r" is an Excel workbook or another office document; save the sheet as csv",
        ),
        (
            "regression.csv",
            {},
            (
                r": label column 'price' has 120 different numbers in 240 rows, so it seems to be "
                r"a quantity"
            ),
        ),
        ("good.csv", {"drop": "dur+proot"}, r" has no column 'proot'; did you mean 'proto'\?"),
        ("good.csv", {"text": "durr"}, r" has no column 'durr'; did you mean 'dur'\?"),
        ("nohead.csv", {"header": None, "label": "c5"}, r" has no column 'c5'; did you mean"),
    ],
)
def test_tables_that_are_refused(file: str, params: Mapping[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        load(file, TABLES, **params)
    assert file in str(caught.value) and "\n" not in str(caught.value)


# -- more of the same kinds, made from the sound file


def put(folder: Path, content: str | bytes, name: str = "t.csv") -> str:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def edited(edit: Callable[[int, str], str]) -> str:
    """The sound file with every line but the first changed; lines are counted from 2."""
    first, *rest = GOOD.splitlines()
    return (
        "\n".join([first, *(edit(number, line) for number, line in enumerate(rest, start=2))])
        + "\n"
    )


@pytest.mark.parametrize(
    "word",
    [
        "-",
        "--",
        ".",
        "n/a",
        "N/A",
        "#N/A",
        "#VALUE!",
        "None",
        "NULL",
        "<NA>",
        "?",
        "missing",
        "-nan",
    ],
)
def test_usual_words_for_missing_among_numbers(word: str, tmp_path: Path) -> None:
    name = put(
        tmp_path,
        edited(lambda number, line: line if number % 50 else f"{word},{line.partition(',')[2]}"),
    )
    data, found = load(name, tmp_path)
    assert found.columns[0] == ("dur", "number", 2, "4 missing") and data.train.x.shape[1] == 6


@pytest.mark.parametrize("word", ["12%", "<0.01", "~3", "3.1 ms", "1.2.3", "O", "1,5", "12:30"])
def test_a_stranger_among_numbers_is_named_with_its_line(word: str, tmp_path: Path) -> None:
    name = put(
        tmp_path,
        edited(lambda number, line: line if number != 77 else f'"{word}",{line.partition(",")[2]}'),
    )
    with pytest.raises(
        BadInput, match=rf"column 'dur' is 239 numbers and '{re.escape(word)}' in line 77"
    ):
        load(name, tmp_path)
    assert load(name, tmp_path, missing=word)[1].columns[0].detail == "1 missing"
    assert load(name, tmp_path, text="dur")[1].columns[0].kind == "category"


def test_few_numbers_among_words_are_no_mistake(tmp_path: Path) -> None:
    """A column of codes: 1, 2, … and A."""
    name = put(
        tmp_path,
        edited(
            lambda number, line: (
                f"{'A' if number % 5 == 0 else number % 5},{line.partition(',')[2]}"
            )
        ),
    )
    _, found = load(name, tmp_path)
    assert (
        found.columns[0].kind == "category"
        and "column 'dur' is taken as text: 192 numbers and 'A' in line 5 and 47 others"
        in found.notes[0]
    )
    name = put(
        tmp_path,
        edited(lambda number, line: f"{'A' if number % 5 else 7},{line.partition(',')[2]}"),
    )
    assert not load(name, tmp_path)[1].notes


@pytest.mark.parametrize(
    ("params", "words", "numbers"),
    [
        (
            {"thousands": "comma"},
            ['"1,234"', '"12,345,678.5"', "99", '"-1,000"'],
            [1234, 12345678.5, 99, -1000],
        ),
        (
            {"thousands": "point", "decimal": "comma"},
            ["1.234", '"1.234,5"', '"0,25"', "7"],
            [1234, 1234.5, 0.25, 7],
        ),
        ({"thousands": "blank"}, ["1 234", "12 345.5", "7", "-8"], [1234, 12345.5, 7, -8]),
        ({"thousands": "apostrophe"}, ["1'234", "7.5", "1e3", "0"], [1234, 7.5, 1000, 0]),
        ({"decimal": "comma"}, ['"1,5"', '"-0,5"', "3", '"1,5e1"'], [1.5, -0.5, 3, 15]),
    ],
)
def test_numbers_as_they_are_written_elsewhere(
    params: Mapping[str, Any], words: list[str], numbers: list[float], tmp_path: Path
) -> None:
    name = put(
        tmp_path,
        edited(
            lambda number, line: f"{words[number % 4]},{number},{line.rpartition(',')[2]}"
        ).replace("bytes,proto", "k"),
    )
    data, found = load(name, tmp_path, **params)
    assert found.columns[0].kind == "number"
    for row in data.train.x:
        assert float(row[0]) == pytest.approx(numbers[int(row[1]) % 4])


def test_options_that_contradict_are_refused() -> None:
    with pytest.raises(BadInput, match="decimal and thousands are both comma"):
        load("good.csv", decimal="comma", thousands="comma")
    with pytest.raises(BadInput, match=r"encoding='utf8-8' is not allowed; did you mean 'utf-8'\?"):
        load("good.csv", encoding="utf8-8")


def test_rows_without_a_label_are_counted(tmp_path: Path) -> None:
    name = put(
        tmp_path,
        edited(lambda number, line: line if number % 10 else line.rpartition(",")[0] + ","),
    )
    _, found = load(name, tmp_path)
    assert (
        dict(found.dropped) == {"without a label": 24}
        and found.rows == 240
        and found.train + found.test == 216
    )
    assert "240 rows, 24 dropped (without a label)" in readings.line(found)
    name = put(
        tmp_path,
        edited(lambda number, line: line if number % 10 else line.rpartition(",")[0] + ",unknown"),
    )
    assert load(name, tmp_path, missing="unknown")[1].dropped == {"without a label": 24}


def test_a_copy_of_the_label_is_named(tmp_path: Path) -> None:
    first, *rest = GOOD.splitlines()
    name = put(
        tmp_path,
        "\n".join(
            [f"code,{first}", *(f"{'x' if 'BENIGN' in line else 'y'},{line}" for line in rest)]
        ),
    )
    assert load(name, tmp_path)[1].notes == (
        "column 'code' is the label in other words: every value goes with one class",
    )


def test_shuffled_row_numbers_are_named(tmp_path: Path) -> None:
    first, *rest = GOOD.splitlines()
    name = put(
        tmp_path,
        "\n".join(
            [f"id,{first}", *(f"{number * 7 % 240},{line}" for number, line in enumerate(rest))]
        ),
    )
    assert "column 'id' counts the rows" in load(name, tmp_path)[1].notes[0]


def test_a_text_with_line_ends_is_no_open_quotation_mark(tmp_path: Path) -> None:
    name = put(
        tmp_path,
        edited(
            lambda number, line: (
                line if number != 30 else '1.0,2.0,"a\nwith, a comma\nand more",BENIGN'
            )
        ),
    )
    assert load(name, tmp_path)[1].rows == 240
    swallowed = edited(
        lambda number, line: {30: '1.0,2.0,"a,BENIGN', 60: '1.0,2.0,b",BENIGN'}.get(number, line)
    )
    with pytest.raises(
        BadInput, match=r"lines 30 to 60: a field in quotation marks holds whole rows"
    ):
        load(put(tmp_path, swallowed), tmp_path)


def test_lines_are_counted_from_the_start_of_the_file(tmp_path: Path) -> None:
    content = "# one\r\n# two\r\n" + edited(
        lambda number, line: line if number != 40 else f"{line},x"
    ).replace("\n", "\r\n")
    with pytest.raises(
        BadInput, match=r"line 42 has 5 fields, and the first line of the table has 4"
    ):
        load(put(tmp_path, content), tmp_path, skip=2)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_packed_files_whatever_their_name(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    assert load(put(tmp_path, pack(GOOD.encode())), tmp_path)[1].classes == HALVES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1\x15\x04", "is a Parquet file"),
        (b"\x28\xb5\x2f\xfd\x04", "is a file packed with zstd"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "is an Excel workbook"),
        (b"\x93NUMPY\x01", "is a NumPy array"),
        (b"  <!DOCTYPE html>", "is a web page"),
        (b"<?xml version='1.0'?><error/>", "is a web page"),
    ],
)
def test_files_that_are_no_csv_are_named_for_what_they_are(
    content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        load(put(tmp_path, content), tmp_path)


def test_an_archive_of_several_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.csv", "w") as archive:
        archive.writestr("a.csv", GOOD)
        archive.writestr("b.csv", GOOD)
    with pytest.raises(
        BadInput, match=r"is a zip archive of 2 files, a.csv, b.csv; unpack the one that is meant"
    ):
        load("t.csv", tmp_path)


def test_clients_are_text_as_they_stand(tmp_path: Path) -> None:
    data, _ = load("client_zeros.csv", client="site")
    assert data.client is not None and len(data.client.unique()) == 5  # 007, 7, 07, 1e1 and 10
    with pytest.raises(BadInput, match=r"client column 'dur' is empty in 1 rows, first in line 9"):
        load(
            put(
                tmp_path,
                edited(lambda number, line: line if number != 9 else f",{line.partition(',')[2]}"),
            ),
            tmp_path,
            client="dur",
        )


def test_codes_are_categories_where_that_is_said(tmp_path: Path) -> None:
    name = put(tmp_path, edited(lambda number, line: f"0{number % 3},{line.partition(',')[2]}"))
    assert [load(name, tmp_path, text=text)[1].columns[0].kind for text in (None, "dur")] == [
        "number",
        "category",
    ]


# -- tweets


@pytest.mark.parametrize(
    ("case", "rows", "dropped", "classes"),
    [
        ("csv_ok", 59, {}, (29, 30)),
        ("csv_bom", 59, {}, (29, 30)),
        ("csv_04", 59, {}, (29, 30)),
        ("csv_float", 59, {}, (29, 30)),
        ("leaf_ok", 90, {}, None),
        ("leaf_04", 90, {}, None),
        ("leaf_float", 90, {}, None),
        ("leaf_textonly", 90, {}, None),
        ("orig_ok", 60, {}, (30, 30)),
        ("orig_blank", 60, {}, (30, 30)),
        ("orig_bom", 60, {}, (30, 30)),
        ("orig_header", 60, {"header line": 1}, (29, 30)),
        ("orig_neutral", 80, {"neutral": 27}, None),
        ("orig_quote", 60, {}, (30, 30)),
        ("orig_unquoted", 60, {}, (30, 30)),
        ("orig_utf8", 60, {}, (30, 30)),
    ],
)
def test_tweets_that_are_read(
    case: str, rows: int, dropped: Mapping[str, int], classes: tuple[int, int] | None
) -> None:
    data, found = load("", TWEETS / case, "twitter")
    assert (
        found.rows == rows
        and {reason: count for reason, count in found.dropped.items() if "test part" not in reason}
        == dropped
    )
    assert found.train + found.test + sum(found.dropped.values()) == rows
    if classes:
        assert tuple(found.classes.values()) == classes
    assert set(data.train.y.tolist()) == {0, 1} and found.source.startswith("twitter/")


def test_tweets_are_the_same_however_their_labels_are_written() -> None:
    for form in ("csv", "leaf"):
        first, *others = [
            load("", TWEETS / f"{form}_{way}", "twitter")[0] for way in ("ok", "04", "float")
        ]
        assert all(
            torch.equal(first.train.x, other.train.x) and torch.equal(first.train.y, other.train.y)
            for other in others
        )


def test_no_line_is_swallowed_by_a_quotation_mark() -> None:
    plain, unquoted = (
        load("", TWEETS / case, "twitter") for case in ("orig_quote", "orig_unquoted")
    )
    assert (
        unquoted[1].notes
        == ("quotation marks do not enclose the tweets: every line is taken by itself",)
        and not plain[1].notes
    )
    assert "said" in (plain[0].vocabulary or {})  # he said "hi


def test_utf_8_is_told_from_latin_1(tmp_path: Path) -> None:
    data, _ = load("", TWEETS / "orig_utf8", "twitter")
    assert {"café", "naïve"} <= set(data.vocabulary or {})
    (path,) = (TWEETS / "orig_utf8/twitter").iterdir()
    (tmp_path / "twitter").mkdir()
    (tmp_path / "twitter" / path.name).write_bytes(
        path.read_text(encoding="utf-8").encode("latin-1")
    )
    assert load("", tmp_path, "twitter")[0].vocabulary == data.vocabulary


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("csv_head", r"tweets.csv: all [0-9]+ tweets are negative; there are two classes; put "),
        (
            "leaf_folder",
            (
                r"leaf cannot be read: ValueError: 90 of the 90 tweets of "
                r"all_data_niid_0_keep_3_train_9.json stand in other files"
            ),
        ),
    ],
)
def test_tweets_that_are_refused(case: str, message: str) -> None:
    with pytest.raises(BadInput, match=rf"^[^\n]*{message}[^\n]*$"):
        load("", TWEETS / case, "twitter")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["0,a,b,head", "1,a,c,head", "4,a,d,head"],
            r"line 4 has the label '4' after others of \{'1'\}: positive is 1 or 4, not both",
        ),
        (["0,a,b,head", "1,a"], r"line 3 has 2 fields; the first has 4"),
        (["0,a,b,head", "3,a,b,head"], r"line 3 has the label '3', which is none of 0, 1, 4 and 2"),
        (["0,a,b,head", '1,a,"b,head'], r"line 3: a quotation mark is not closed"),
    ],
)
def test_more_tweets_that_are_refused(lines: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "twitter").mkdir()
    put(tmp_path / "twitter", "\n".join(["label,user,text,part", *lines]) + "\n", "tweets.csv")
    with pytest.raises(BadInput, match=message):
        load("", tmp_path, "twitter")


def test_leaf_files_of_one_sample_split_belong_together(tmp_path: Path) -> None:
    """LEAF's split by sample: the same users in both files, other tweets."""
    whole = json.loads((TWEETS / "leaf_ok/twitter/leaf_sample.json").read_text())
    for name, part in (("train.json", slice(0, None, 2)), ("test.json", slice(1, None, 2))):
        own = {
            user: {key: values[part] for key, values in data.items()}
            for user, data in whole["user_data"].items()
        }
        (tmp_path / "twitter/leaf").mkdir(parents=True, exist_ok=True)
        put(
            tmp_path / "twitter/leaf", json.dumps({"users": whole["users"], "user_data": own}), name
        )
    assert load("", tmp_path, "twitter")[1].rows == 90


def test_a_file_in_the_working_folder_is_not_the_one_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TABLES)
    with pytest.raises(
        BadInput,
        match=(
            rf"{tmp_path}/good.csv is missing, and {TABLES}/good.csv is there: "
            r".*say --data-dir \.,"
        ),
    ):
        load("good.csv", tmp_path)
    assert load("good.csv", Path())[1].rows == 240


# -- other files

STANDING_IN = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n": (
        "is a Git LFS pointer, not the file itself"
    ),
    b"/annex/objects/MD5E-s170498071--c58f30108f718f92721af3b95e74349a\n": (
        "is a git-annex pointer, not the file itself"
    ),
    b"\n<!DOCTYPE html><html><body>Please log in</body></html>": (
        "is a web page, not the file itself"
    ),
}


@pytest.mark.parametrize("content", STANDING_IN, ids=["lfs", "annex", "page"])
@pytest.mark.parametrize(
    "name",
    [name for name in plugins.names("datasets") if plugins.build("datasets", name, {}).files],
)
def test_what_stands_in_place_of_a_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    dataset = plugins.build("datasets", name, {})
    for file in dataset.files:
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.path).write_bytes(content)
    with pytest.raises(BadInput, match=STANDING_IN[content]) as caught:
        dataset.load(tmp_path)
    assert dataset.files[0].path in str(caught.value) and "\n" not in str(caught.value)


# -- what is said


def test_one_line_at_every_load_and_only_one(capsys: pytest.CaptureFixture[str]) -> None:
    loading._load.cache_clear()
    part = Part("table", {"path": "telco.csv"})
    for _ in range(2):
        loading.load_dataset(part, TABLES)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(
        "read telco.csv: 240 rows, none dropped; 2 classes: No 203, Yes 37; 25 features from "
        "columns: 3 of numbers, 1 of categories; "
    )
    assert "note: column 'customerID' has another text in every row" in err


def test_datasets_that_say_nothing_are_described_by_their_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loading._load.cache_clear()
    data = loading.load_dataset(Part("digits"), tmp_path)
    found = readings.of(data, "digits")
    assert (
        found.rows == len(data.train.y) + len(data.test.y)
        and sum(found.classes.values()) == found.rows
    )
    assert capsys.readouterr().err.startswith(f"read digits: {found.rows} rows")


def test_one_class_is_refused_whatever_the_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    loading._load.cache_clear()
    good, _ = load("good.csv")
    alone = good._replace(train=good.train._replace(y=good.train.y * 0))
    monkeypatch.setattr(
        loading,
        "dataset",
        lambda part: plugins.build("datasets", "table", {})._replace(load=lambda folder: alone),
    )
    with pytest.raises(
        BadInput,
        match=r"dataset table: all 192 training samples have one label, 0; nothing can be learned",
    ):
        loading.load_dataset(Part("table"), TABLES)


def test_the_tag_holds_all_of_it_and_fits(tmp_path: Path) -> None:
    part = Part("table", {"path": "telco.csv"})
    document = json.loads(loading.what_was_read(part, TABLES, 8000))
    assert (
        document["classes"] == {"No": 203, "Yes": 37}
        and document["columns"][0]["name"] == "customerID"
        and document["notes"]
    )
    wide = "\n".join(
        [
            ",".join([*(f"f{i}" for i in range(2000)), "y"]),
            *(",".join(str((i * r) % 7) for i in range(2000)) + f",{r % 2}" for r in range(40)),
        ]
    )
    put(tmp_path, wide)
    short = loading.what_was_read(Part("table", {"path": "t.csv"}), tmp_path, TAG_LIMIT)
    assert len(short) <= TAG_LIMIT and sum(json.loads(short)["columns"].values()) == 2000
    made = Origin("cpu", reading=json.dumps(document))
    tags = run_tags(Spec(dataset=part), space="", origin=made, parent=None)
    assert json.loads(tags["backstop.data"]) == document


def test_backstop_data_says_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    name = "table(path=nohead.csv)"
    assert cli.main(["data", name, "--data-dir", str(TABLES)]) == 0
    out = capsys.readouterr().out
    assert (
        "read nohead.csv: 239 rows, none dropped" in out
        and "note: the header line looks like data" in out
    )
    assert re.search(
        r"^ +0\.?\d* +number, 1 feature$|^ +3.94 +number, 1 feature$", out, re.MULTILINE
    )
    assert cli.main(["data", name, "--data-dir", str(TABLES), "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)
    assert item["reading"]["rows"] == 239 and item["own"] and item["usable"]
    assert cli.main(["data", "table(path=quotes.csv)", "--data-dir", str(TABLES)]) == 2
    assert "lines 51 to 111" in capsys.readouterr().err
    assert cli.main(["data", "table(paht=quotes.csv)"]) == 2
    assert "did you mean 'path'?" in capsys.readouterr().err


def test_a_part_of_a_spec_names_such_a_file() -> None:
    part = parse_part("table(path=nohead.csv, header=none, missing='-', label=c4)")
    assert complete_part(part, "datasets").params["header"] is None
    assert loading.load_dataset(part, TABLES).classes == 2


def test_text_is_decoded_once_and_by_its_mark(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "t").write_bytes("é,b\n".encode(encoding))
        assert read_text(tmp_path / "t") == "é,b\n"
    (tmp_path / "t").write_bytes("é\n".encode("latin-1"))
    assert read_text(tmp_path / "t", otherwise="latin-1") == "é\n"
