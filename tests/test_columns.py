"""One tuple of columns: every form of the ranking shows what it says."""

from __future__ import annotations

import csv
import io
import math
import re
import string
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from backstop.platform.results.leaderboard import ranking
from backstop.platform.results.tables import columns, frames, parquet
from backstop.platform.results.tables.columns import (
    COLUMNS,
    BoardColumn,
    Form,
    columns_in,
    ranked_rows,
)
from backstop.platform.results.tables.files import write_leaderboard
from backstop.platform.results.tables.latex import latex, latex_text
from backstop.platform.results.tables.markdown import markdown
from backstop.platform.results.tables.parquet import write_parquet
from backstop.platform.results.tables.terminal import terminal_table
from tests.boards import run, runs

Document = Mapping[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    return ranking.build_document(runs(), "x")


def cost_of(row: Document) -> float:
    return float(row["cost_under_attack"]["mean"])


def printed(document: Document) -> str:
    console = Console(width=250, file=io.StringIO(), record=True)
    console.print(terminal_table(document, console.width))
    return console.export_text()


def test_a_new_column_is_one_entry(monkeypatch: pytest.MonkeyPatch, document: Document) -> None:
    """Every form shows it without a change of its own; the csv and the frame have it at the end."""
    forms: tuple[Form, ...] = ("terminal", "markdown", "page", "latex")
    price = BoardColumn(
        "price", "price paid", "share", forms, value=lambda row: cost_of(row.fields) / 2
    )
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, price))
    row = document["rows"][0]
    text = f"{50 * cost_of(row):.1f}"
    assert "paid" in printed(document)
    assert f"| {text} |" in markdown(document)
    assert "price paid |" in markdown(document)
    assert "price paid \\\\" in latex(document)
    assert f"& {text} \\\\" in latex(document)
    frame = frames.leaderboard_frame(document)
    assert list(frame)[-1] == "price"
    assert frame["price"][0] == cost_of(row) / 2
    (first, *_) = csv.DictReader(io.StringIO(frames.leaderboard_csv(document)))
    assert float(first["price"]) == cost_of(row) / 2


def test_a_new_figure_takes_three_columns_of_the_csv(
    monkeypatch: pytest.MonkeyPatch, document: Document
) -> None:
    twice = BoardColumn(
        "again", "again", "figure", (), value=lambda row: row.fields["clean_accuracy"]
    )
    absent = BoardColumn("absent", "absent", "figure", (), value=lambda row: None)
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, twice, absent))
    frame = frames.leaderboard_frame(document)
    assert frame["again_low"].equals(frame["clean_accuracy_low"])
    assert frame[["absent_mean", "absent_low", "absent_high"]].isna().all(axis=None)


def test_keys_and_headings_are_unique_in_each_form() -> None:
    for form in ("terminal", "markdown", "page", "latex"):
        shown = [column for column in COLUMNS if form in column.shown_in]
        assert len({column.key for column in shown}) == len(shown)
        assert len({column.heading for column in shown}) == len(shown)
        assert [column.key for column in shown][:2] == ["rank", "defense"]


def test_the_csv_keeps_its_columns(document: Document) -> None:
    """In the order of the document's fields: files of different days are compared by scripts."""
    header = frames.leaderboard_csv(document).splitlines()[0].split(",")
    assert [name for name in header if not name.endswith(("_low", "_high"))] == [
        "rank", "unranked", "variant", "defense", "needs", "attacks", "families", "left_out",
        "seeds", "uncounted_seeds", "score_mean",
        "excess_success_mean", "cost_under_attack_mean",
        "clean_accuracy_mean", "attack_success_rate_mean", "robust_accuracy_mean",
        "accuracy_cost_mean", "asr_reduction_mean", "der_mean",
        "cost_without_attack_mean", "learning_retained_mean", "no_attack_accuracy_mean",
        "worst_excess_mean", "worst_attack", "worst_attack_success_rate_mean",
        "worst_case_success_mean", "worst_case_attack", "worst_case_budget",
        "borrowed_twins", "missing", "diverged", "break_even_share", "accuracy_lost_mean",
    ]  # fmt: skip
    figures = [name for name in header if name.endswith("_mean")]
    ends = {f"{name.removesuffix('mean')}{end}" for name in figures for end in ("low", "high")}
    assert ends | {"rank_low", "rank_high"} == {
        name for name in header if name.endswith(("_low", "_high"))
    }


def test_the_csv_holds_every_digit_and_leaves_out_what_is_missing() -> None:
    third = {"clean_accuracy": 1 / 3, "attack_success_rate": 1e-17}
    document = ranking.build_document(
        [run("badnets", "fedavg", seed, third) for seed in (0, 1)], "x"
    )
    (row,) = csv.DictReader(io.StringIO(frames.leaderboard_csv(document)))
    assert row["clean_accuracy_mean"] == repr(1 / 3)
    assert row["attack_success_rate_mean"] == "1e-17"
    assert row["seeds"] == "0; 1"
    assert row["robust_accuracy_mean"] == row["no_attack_accuracy_low"] == ""
    clean = ranking.build_document([run("none", "fedavg", 0, third)], "x")
    assert frames.leaderboard_csv(clean) == "\n"


def test_frames_hold_numbers(document: Document) -> None:
    frame = frames.leaderboard_frame(document)
    assert list(frame["defense"]) == [row["defense"] for row in document["rows"]]
    assert list(frame["der_mean"]) == [row["der"]["mean"] for row in document["rows"]]
    unmeasured = [run("badnets", "fedavg", 0, {"clean_accuracy": 0.5})]
    bare = ranking.build_document(unmeasured, "x")
    for column in ("robust_accuracy_mean", "worst_attack_success_rate_mean", "der_low"):
        assert pd.api.types.is_float_dtype(frames.leaderboard_frame(bare)[column])
    cells = frames.cells_frame(document)
    assert len(cells) == len(document["cells"])
    assert cells["attack_success_rate_mean"].isna().sum() == (cells["attack"] == "none").sum()


def test_a_frame_of_runs_tells_clean_twins_from_attacked_runs() -> None:
    success = {"clean_accuracy": 0.5, "attack_success_rate": 0.25}
    given = [run("badnets", "fedavg", seed, success, dormant=bool(seed)) for seed in (0, 1)]
    frame = frames.runs_frame(given)
    assert list(frame["dormant"]) == [False, True]
    assert list(frame["attack_success_rate"]) == [0.25, 0.25]
    assert list(frame["total_train_s"]) == [1.5, 1.5]
    assert frames.runs_frame([]).empty


def test_parquet_holds_the_frames(document: Document, tmp_path: Path) -> None:
    ranked, cells = write_parquet(document, tmp_path)
    read = pd.read_parquet(ranked)
    assert list(read["score_mean"]) == [row["score"]["mean"] for row in document["rows"]]
    assert list(read["needs"].map(list)) == [row["needs"] for row in document["rows"]]
    assert read["rank"].isna().sum() == 12  # variants and FedAvg
    assert len(pd.read_parquet(cells)) == len(document["cells"])


def test_without_its_library_there_is_no_parquet(
    document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "LIBRARY", "no_such_library")
    written = write_leaderboard(document, runs(), tmp_path)
    assert [path.suffix for path in written] == [".json", ".csv", ".md", ".tex", ".csv"]


def test_a_mean_does_not_depend_on_the_order() -> None:
    values = [0.1, 0.7, 1e16, -1e16, 0.2]
    means = {frames.exact_mean(pd.Series(order)) for order in permutations(values)}
    assert means == {math.fsum(values) / 5}
    assert frames.exact_mean(pd.Series([0.5, math.nan])) == 0.5
    assert math.isnan(frames.exact_mean(pd.Series([math.nan])))


def test_latex_has_a_line_for_each_defense(document: Document) -> None:
    lines = latex(document).splitlines()
    heads = columns_in("latex", ranked_rows(document))
    assert f"{{{''.join(column.alignment[0] for column in heads)}}}" in lines[1]
    table = [line for line in lines if line.endswith("\\\\")]
    assert len(table) == 1 + len(document["rows"])
    assert {line.count(" & ") for line in table} == {len(heads) - 1}


def test_latex_says_what_is_missing_and_escapes_every_text() -> None:
    attack = r"phrase(words='a_b & 50% {#$^~\\x}')"
    success = {"clean_accuracy": 0.5, "attack_success_rate": 0.25}
    given = [run(attack, "fedavg", 0, success), run("phrase", "fedavg", 0, success)]
    document = ranking.build_document(given, "x", planned={"other": "krum_2, 50 %"})
    text = latex(document)
    assert r"INCOMPLETE: 1 planned run is missing: krum\_2, 50 \%." in text
    assert latex_text(r"a_b & 50% {#$^~\}") == (
        r"a\_b \& 50\% \{\#\$\textasciicircum{}\textasciitilde{}\textbackslash{}\}"
    )


@pytest.mark.parametrize("sign", string.punctuation)
def test_every_sign_of_a_name_is_one_that_tex_prints(sign: str) -> None:
    """Where TeX takes a sign as its own, a control symbol or a control word stands for it."""
    text = latex_text(f"a{sign}b")
    if sign in "#$%&_{}":
        assert text == f"a\\{sign}b"
    elif sign in "\\^~<>|":  # the last three print as other signs in TeX's first text fonts
        assert re.fullmatch(r"a\\text[a-z]+\{\}b", text)
    else:
        assert text == f"a{sign}b"


def test_what_the_latex_table_says_is_ascii(document: Document) -> None:
    """A paper of any input encoding compiles it; every mark of ours has its control word."""
    marked = [
        {
            **row,
            "missing": 1,
            "diverged": 1,
            "needs": ["assumed f"],
            "worst_excess": {**row["worst_excess"], "n": 1},
        }
        for row in document["rows"]
    ]
    text = latex({**document, "rows": marked})
    assert r"\textdagger{}\textdaggerdbl{}\S{}\P{}" in text
    for mark in (r"\textdagger{}", r"\textdaggerdbl{}", r"\S{}", r"\P{}"):
        assert f"\\footnotesize {mark} " in text
    assert text.isascii()
    assert text.count("{") == text.count("}")


def test_markdown_stays_a_table_whatever_a_name_holds() -> None:
    success = {"clean_accuracy": 0.5, "attack_success_rate": 0.25}
    attacks = ["phrase(words='a | b')", "phrase(words='<i>')"]
    document = ranking.build_document([run(item, "fedavg", 0, success) for item in attacks], "x")
    table = markdown(document).partition("attack by attack")[2]
    assert r"| phrase(words='a \| b') |" in table
    assert "<i>" not in table
