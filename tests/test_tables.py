"""Tables: the split that keeps equal rows together, the phishing data in all its forms, and
anyone's csv.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from backstop.platform import plugins
from backstop.platform.contract import Data, Samples, Scalar
from backstop.platform.datasets import phishing
from backstop.platform.intake import readings
from backstop.platform.intake.files import file_status, md5_of
from backstop.platform.intake.tables import held_out, parted
from backstop.platform.params import BadInput

FOLDER = Path(os.environ.get("BACKSTOP_DATA", "/nonexistent"))


def load(folder: Path, **parameters: Scalar) -> Data:
    data: Data = plugins.build("datasets", "table", parameters).load(folder)
    return data


def load_phishing(folder: Path, **parameters: Scalar) -> Data:
    data: Data = plugins.build("datasets", "phishing", parameters).load(folder)
    return data


def rows(samples: Samples) -> set[bytes]:
    return {row.numpy().tobytes() for row in samples.x}


# -- the split


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_copies_stay_together_and_both_sides_have_rows(share: float) -> None:
    x = torch.arange(20).repeat(5).reshape(-1, 1)  # 20 distinct rows, 5 copies of each
    test = held_out(x, share, torch.Generator().manual_seed(1))
    assert len(x[test].unique()) == {0.001: 1, 0.3: 6, 0.999: 19}[share]
    assert not set(x[test].flatten().tolist()) & set(x[~test].flatten().tolist())


def test_the_order_of_the_rows_does_not_matter_and_the_draw_does() -> None:
    x = torch.arange(50).reshape(-1, 1)
    one, turned, other = (
        held_out(y, 0.2, torch.Generator().manual_seed(seed))
        for y, seed in ((x, 1), (x.flip(0), 1), (x, 2))
    )
    assert torch.equal(one, turned.flip(0)) and not torch.equal(one, other)


def test_the_scale_is_that_of_the_training_part() -> None:
    x = torch.tensor([[0.0], [2.0], [100.0]])
    data = parted(
        x,
        torch.tensor([0, 1, 0]),
        torch.tensor([False, False, True]),
        classes=2,
        client=torch.tensor([5, 6, 7]),
    )
    assert data.mean == (1.0,) and data.std == pytest.approx((2**0.5,))
    assert (
        data.client is not None
        and data.client.tolist() == [5, 6]
        and data.test.x.tolist() == [[100.0]]
    )


# -- phishing


def test_the_published_phishing_data() -> None:
    if file_status(FOLDER, phishing.FILE) != "present":
        pytest.skip(f"{phishing.FILE.path} is not in the data folder; set BACKSTOP_DATA")
    data, other = load_phishing(FOLDER), load_phishing(FOLDER, seed=1)
    assert (data.train.x.shape, data.test.x.shape) == ((8862, 30), (2193, 30))
    assert (len(rows(data.train)), len(rows(data.test))) == (4628, 1157) and not rows(
        data.train
    ) & rows(data.test)
    assert int(data.train.y.sum() + data.test.y.sum()) == 4898  # phishing
    assert set(torch.cat([data.train.x, data.test.x]).unique().tolist()) == {-1, 0, 1}
    assert rows(data.test) != rows(other.test)


def sites() -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
    """12 distinct sites, twice; the fourth feature is Result's opposite."""
    x = (np.arange(12)[:, None] // 3 ** np.arange(3) % 3 - 1).astype(np.int8)
    result = np.where(np.arange(12) % 2, 1, -1).astype(np.int8)
    return np.tile(np.column_stack([x, -result, result]), (2, 1))


@pytest.mark.parametrize("form", ["uci_phishing_websites.arff", "Training Dataset.arff", "csv"])
def test_phishing_from_any_form(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = sites()
    body = "\r\n".join(",".join(map(str, row)) for row in wanted.tolist())
    csv, arff = (
        f"a,b,c,d,Result\r\n{body}\r\n",
        (
            f"% a comment\r\n@relation p\r\n@attribute a {{1, "
            f"-1}}\r\n\r\n@data\r\n{body.replace(',', ' ,')}"
        ),
    )
    (tmp_path / "phishing").mkdir()
    path = tmp_path / "phishing" / (form if form.endswith("arff") else "uci_phishing_websites.csv")
    path.write_bytes((csv if form == "csv" else arff).encode())
    monkeypatch.setattr(phishing, "CHECKSUM", md5_of(wanted.tobytes()))
    monkeypatch.setattr(phishing, "FILE", phishing.FILE._replace(md5=md5_of(csv.encode())))
    data = load_phishing(tmp_path, test=0.25)
    assert (data.train.x.shape, data.test.x.shape) == ((18, 4), (6, 4)) and not rows(
        data.train
    ) & rows(data.test)
    # Result -1 is class 1
    assert all(torch.equal(x[:, 3] == 1, y == 1) for x, y in (data.train, data.test))


def test_other_rows_than_the_published_ones(tmp_path: Path) -> None:
    (tmp_path / "phishing").mkdir()
    path = tmp_path / "phishing/Training Dataset.arff"
    path.write_text("@data\n1,-1,1\n0,1,-1\n")
    with pytest.raises(
        BadInput,
        match=(
            r"Dataset.arff holds other rows, \(2, 3\): their md5 is [0-9a-f]{32}, not 16d65494.*; "
            r"put Training"
        ),
    ):
        load_phishing(tmp_path)
    path.write_text("@data\n1,-1,1\n0,x,-1\n")
    with pytest.raises(
        BadInput,
        match=r"^[^\n]*Dataset.arff cannot be read: ValueError: [^\n]*; put Training Dataset.arff",
    ):
        load_phishing(tmp_path)


# -- anyone's csv


def write(folder: Path, header: str, lines: list[str], name: str = "table.csv") -> None:
    (folder / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def both(data: Data) -> torch.Tensor:
    """The rows of both parts in the order of their first feature."""
    x = torch.cat([data.train.x, data.test.x])
    return x[x[:, 0].argsort()]


def test_every_kind_of_column(tmp_path: Path) -> None:
    """Numbers, numbers in quotation marks, truth values, text; constant columns are left out, and
    labels are sorted as numbers.
    """
    lines = [
        f'{i},"{i}.5",{("TRUE", "false")[i % 2]},{"abc"[i % 3]},same,7,{(10, 9)[i % 2]}'
        for i in range(30)
    ]
    write(tmp_path, "number,quoted,truth,text,constant,seven,label", lines)
    data = load(tmp_path)
    x = both(data)
    assert x.shape == (30, 6) and (data.classes, data.kind) == (2, "table")
    assert x[:, 0].tolist() == list(range(30)) and x[:, 1].tolist() == [i + 0.5 for i in range(30)]
    assert torch.equal(x[:, 2], 1 - torch.arange(30) % 2)
    assert sorted(tuple(column) for column in x[:, 3:].T.tolist()) == sorted(
        tuple(float(i % 3 == k) for i in range(30)) for k in range(3)
    )
    for samples in (data.train, data.test):
        assert torch.equal(samples.y, 1 - samples.x[:, 0].long() % 2)  # 9 is class 0, 10 is class 1
    again, other = load(tmp_path), load(tmp_path, seed=1)
    assert (
        torch.equal(again.train.x, data.train.x)
        and again[2:6] == data[2:6]
        and not torch.equal(other.test.x, data.test.x)
    )


def test_values_have_features_in_the_order_of_their_frequency(tmp_path: Path) -> None:
    counts = {"rare": 1, "z": 20, "b": 40, "a": 20, "odd": 1}
    write(
        tmp_path,
        "text,label",
        [f"{text},{i % 2}" for text, count in counts.items() for i in range(count)],
    )
    # copies are on one side, so which values are in the training part depends on the seed
    for seed in range(4):
        data = load(tmp_path, categories=2, seed=seed)
        x = data.train.x
        # the third feature: all others
        assert x.shape[1] == 3 and x.sum(1).eq(1).all() and data.test.x[:, :2].sum() == 0
        assert (
            x.sum(0).tolist()
            == {40: [20, 20, 2], 20: [40, 20, 2], 1: [40, 20, 21]}[len(data.test.x)]
        )
        assert data.test.x[:, 2].eq(1).all()  # unseen in training: with the rarer ones


def test_ties_are_in_alphabetical_order(tmp_path: Path) -> None:
    write(tmp_path, "number,text,label", [f"{i},{'ba'[i % 2]},{i % 2}" for i in range(40)])
    for seed in range(20):
        data = load(tmp_path, seed=seed)
        odd = data.train.x[:, 0] % 2
        if odd.sum() * 2 == len(odd):
            assert torch.equal(data.train.x[:, 1], odd)
            return
    pytest.fail("no seed of 20 gives a tie")


def test_a_value_that_only_the_test_part_has(tmp_path: Path) -> None:
    write(
        tmp_path,
        "number,text,label",
        [f"{i},{'ab'[i % 2] if i else 'once'},{i % 2}" for i in range(20)],
    )
    for seed in range(30):
        data = load(tmp_path, seed=seed)
        x, alone = both(data), bool((data.test.x[:, 0] == 0).any())
        assert x[0, 1:].tolist() == ([0, 0] if alone else [0, 0, 1])
        if alone:
            assert x[1:, 1:].sum(1).eq(1).all()
            return
    pytest.fail("no seed of 30 puts the row into the test part")


def test_missing_values(tmp_path: Path) -> None:
    """Holes get the median of the training part and a feature of their own; in text they are a
    value; a hole in the label drops the row.
    """
    holes = ["", "?", "NA"]
    lines = [
        f"{i},{holes[i % 3] if i % 2 else i},{'' if i % 4 == 0 else 'word'},{i // 20}"
        for i in range(40)
    ]
    write(tmp_path, "number,some,text,label", [*lines, "99,1,word,", "98,1,word, "])
    data = load(tmp_path)
    x = both(data)
    odd = x[:, 0] % 2 == 1
    assert (
        x.shape == (40, 5)
        and torch.equal(x[:, 2], odd.float())
        and torch.equal(x[~odd, 1], x[~odd, 0])
    )
    known = data.train.x[data.train.x[:, 2] == 0, 1]
    assert x[odd, 1].unique().tolist() == [float(np.median(known.numpy()))]
    assert torch.equal(x[:, 3], (x[:, 0] % 4 != 0).float()) and torch.equal(
        x[:, 4], (x[:, 0] % 4 == 0).float()
    )


def test_nothing_is_learned_from_the_test_part(tmp_path: Path) -> None:
    lines = [f"{i},{'' if i % 5 == 0 else i * i},{'abcdefgh'[i % 8]},{i % 2}" for i in range(60)]
    write(tmp_path, "number,square,text,label", lines)
    data = load(tmp_path, categories=4)
    tested = set(data.test.x[:, 0].int().tolist())
    shifted = [
        line if i not in tested else f"{i},{10**6 if i % 5 else ''},new{i},{i % 2}"
        for i, line in enumerate(lines)
    ]
    write(tmp_path, "number,square,text,label", shifted)
    other = load(tmp_path, categories=4)
    assert set(other.test.x[:, 0].int().tolist()) == tested and not torch.equal(
        other.test.x, data.test.x
    )
    assert torch.equal(other.train.x, data.train.x) and (other.mean, other.std) == (
        data.mean,
        data.std,
    )


def test_equal_rows_are_on_one_side_whatever_their_labels_and_clients(tmp_path: Path) -> None:
    write(
        tmp_path,
        "id,who,a,b,label",
        [
            f"{i},{i % 7},{i % 10}{('', '.0')[i % 2]},{'' if i % 10 < 5 else 'x'},{i % 3}"
            for i in range(90)
        ],
    )
    data = load(tmp_path, drop="id", client="who")
    assert (len(rows(data.train)), len(rows(data.test))) == (8, 2) and not rows(data.train) & rows(
        data.test
    )
    assert data.train.x.shape == (72, 3) and data.classes == 3


def test_clients_are_numbered_and_no_feature(tmp_path: Path) -> None:
    write(tmp_path, "client,a,label", [f"u{i % 3},{i},{i % 2}" for i in range(40)])
    data = load(tmp_path, client="client")
    assert (
        data.client is not None
        and torch.equal(data.client, data.train.x[:, 0].long() % 3)
        and data.train.x.shape[1] == 1
    )


def test_the_label_may_be_any_column_and_the_file_anywhere(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(
        tmp_path,
        "\ufefflabel,a",
        [f"{'no' if i % 2 else 'yes'},{i}" for i in range(20)],
        "deep/mine.csv",
    )
    for path in ("deep/mine.csv", str(tmp_path / "deep/mine.csv")):
        data = load(tmp_path if path[0] == "d" else Path("/nonexistent"), path=path, label="label")
        assert torch.equal(data.train.y, 1 - data.train.x[:, 0].long() % 2)  # no is class 0


UNITS = [f"{i % 12}.5%,{i % 3} kg,{i % 4},{i},{i % 2}" for i in range(48)]


def noted(folder: Path, lines: list[str], **parameters: Scalar) -> tuple[str, ...]:
    write(folder, "rate,weight,code,id,label", lines)
    reading = load(folder, **parameters).reading
    assert reading is not None
    return tuple(note for note in reading.notes if "counts the rows" not in note)


def test_columns_of_numbers_with_a_unit_are_categories_and_named(tmp_path: Path) -> None:
    rate = "column 'rate': every value is a number with '%' after it; read as 12 categories"
    weight = "column 'weight': every value is a number with 'kg' after it; read as 3 categories"
    assert noted(tmp_path, UNITS) == (f"{rate}; {weight}",)
    reading = load(tmp_path).reading
    assert reading is not None
    assert rate in readings.line(reading)
    assert [column.kind for column in reading.columns] == [
        "category",
        "category",
        "number",
        "number",
    ]
    assert reading.columns[0].detail == "12 values, each a number with '%' after it"
    assert noted(tmp_path, UNITS, text="rate") == (weight,)  # who asks for text gets it
    assert noted(tmp_path, UNITS, drop="rate+weight") == ()


def test_a_number_with_a_unit_may_be_missing_or_in_every_row_another(tmp_path: Path) -> None:
    holes = [
        line if i % 5 else line.replace(line.split(",")[0], "n/a") for i, line in enumerate(UNITS)
    ]
    assert (
        "column 'rate': every value is a number with '%' after it"
        in noted(tmp_path, holes, drop="weight")[0]
    )
    (distinct,) = noted(tmp_path, [f"{i}%,1,{i % 4},{i},{i % 2}" for i in range(48)])
    assert (
        distinct
        == "column 'rate': every value is a number with '%' after it; read as 48 categories"
    )


@pytest.mark.parametrize("other", ["high", "3 kg", "%", "1.2.3%", "7"])
def test_one_other_value_and_it_is_no_column_of_numbers_with_a_unit(
    other: str, tmp_path: Path
) -> None:
    assert (
        noted(tmp_path, [f"{other},{UNITS[0].partition(',')[2]}", *UNITS[1:]], drop="weight") == ()
    )


def test_a_time_is_no_number_with_a_unit(tmp_path: Path) -> None:
    assert noted(tmp_path, [line.replace(".5%", ":30") for line in UNITS], drop="weight") == ()
    assert noted(tmp_path, [line.replace(".5%", "-07-01") for line in UNITS], drop="weight") == ()


def test_many_columns_with_units_are_counted(tmp_path: Path) -> None:
    shares = [[f"{(i + j) % 5}%" for j in range(7)] for i in range(60)]
    write(
        tmp_path,
        ",".join("abcdefgh"),
        [",".join([*row, str(i % 2)]) for i, row in enumerate(shares)],
    )
    reading = load(tmp_path).reading
    assert reading is not None
    assert reading.notes[0].count("read as 5 categories") == 5
    assert reading.notes[0].endswith("; 2 more such columns")


GOOD = [f"{i},{i % 4},{i % 2}" for i in range(40)]


@pytest.mark.parametrize(
    ("header", "lines", "parameters", "message"),
    [
        ("id,a,label", GOOD, {"path": "tabel.csv"}, r"tabel.csv is missing; put a csv file there"),
        (
            "id,a,label",
            GOOD,
            {"label": "lable"},
            r"table.csv has no column 'lable'; did you mean 'label'\?",
        ),
        ("id,a,label", GOOD, {"client": "x"}, r"table.csv has no column 'x'; known: a, id, label"),
        ("id,a,label", GOOD, {"drop": "id+b"}, r"table.csv has no column 'b'"),
        (
            "id,a,label",
            GOOD,
            {"drop": "label"},
            r"column 'label' is named twice; label \(the last column if none\), client and drop",
        ),
        ("id,a,label", GOOD, {"drop": "id+id"}, r"column 'id' is named twice"),
        ("id,a,label", GOOD, {"drop": "id+a"}, r"no column is left for the inputs"),
        (
            "id,a,label",
            GOOD,
            {"label": "id"},
            r"label column 'id' has as many values as rows, 40, so it seems to name the rows",
        ),
        (
            "id,a,label",
            GOOD[:9],
            {},
            r"label column 'label' has 9 labeled rows; there are at least 10",
        ),
        ("id,a,label", [*GOOD[:9], "1,2,"], {}, r"has 9 labeled rows"),
        (
            "a,label",
            [f"{i},1" for i in range(20)],
            {},
            r"has 1 distinct values; there are 2 to 1000 classes",
        ),
        ("a,label", [f"{i},{i % 1001}" for i in range(1500)], {}, r"has 1001 distinct values"),
        (
            "a,label",
            ["1,0", "1,1"] * 10,
            {},
            r"no column of inputs has two different values in the training part",
        ),
        (
            "a,label",
            [*["1,x"] * 10, *["2,y"] * 10],
            {},
            r"class '[xy]' has no training rows, its 10 rows are all test rows",
        ),
        (
            "a,label",
            [*(f"{i},{i % 2}" for i in range(20)), "inf,1"],
            {},
            r"column 'a' holds infinity or numbers beyond ±3.4e\+38",
        ),
        (
            "a,label",
            [*(f"{i},{i % 2}" for i in range(20)), "-1e39,1"],
            {},
            r"column 'a' holds infinity",
        ),
        (
            "who,a,label",
            [f"{'' if i < 2 else i % 3},{i},{i % 2}" for i in range(20)],
            {"client": "who"},
            r"client column 'who' is empty in 2 rows",
        ),
        (
            "id;a;label",
            [line.replace(",", ";") for line in GOOD],
            {},
            (
                r"table.csv: the first line has no comma between fields but semicolons: "
                r"table\(separator=semicolon\)"
            ),
        ),
        (
            "a,label",
            GOOD,
            {},
            (
                r"table.csv: line 2 has 3 fields, and the first line of the table has 2; "
                r".*table\(skip=1\); if the first field names the row"
            ),
        ),
        (
            "id,a,label",
            [*GOOD, "1,2,3,4"],
            {},
            (
                r"table.csv: line 42 has 4 fields, and the first line of the table has 3; it is "
                r"the last one"
            ),
        ),
        ("", [], {}, r"table.csv cannot be read: it has 0 rows; put a csv file there"),
    ],
)
def test_refusals(
    header: str, lines: list[str], parameters: dict[str, Scalar], message: str, tmp_path: Path
) -> None:
    write(tmp_path, header, lines)
    with pytest.raises(BadInput, match=rf"^[^\n]*{message}[^\n]*$"):
        load(tmp_path, **parameters)


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n\xff\xfe,1\n", b"PK\x03\x04\x14\x00\x06\x00", b'a,b\n"1,2\n3,4\n']
)
def test_bytes_that_are_no_csv(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(BadInput, match=r"^[^\n]*table.csv[^\n]*$"):
        load(tmp_path)
    (tmp_path / "table.csv").unlink()
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(
        BadInput, match=r"^[^\n]*table.csv cannot be read: IsADirectoryError[^\n]*$"
    ):
        load(tmp_path)
