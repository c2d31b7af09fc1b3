"""An entry holds the runs of one attack or defense, and joins the board it was taken from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backstop.platform import cli
from tests.boards import ATTACKS
from tests.test_merging import FILES, RUNS, write

BADNETS = list(ATTACKS)[1]
REPORTED = f"""dataset,attack,metric,reported,where
digits,"{BADNETS}",attack_success_rate,0.123,Table 2
digits,nothing like it,clean_accuracy,0.931,Table 3
"""
MISSING = (
    "no run of median reproduces 1 of 2 reported figures: clean_accuracy on digits,"
    " attack 'nothing like it' (Table 3)"
)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return Path(write(tmp_path / "board", RUNS))


def submitted(board: Path, chain: str, out: Path, *more: str) -> dict[str, object]:
    assert cli.main(["submit", str(board), chain, "--out", str(out), *more]) == 0
    entry: dict[str, object] = json.loads((out / "entry.json").read_text())
    return entry


def test_a_defense_comes_with_fedavg_and_what_its_paper_reports(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "paper.csv").write_text(REPORTED)
    out = tmp_path / "entry"
    reported = ("--reported", str(tmp_path / "paper.csv"))
    entry = submitted(board, "median", out, *reported, "--partial")
    assert MISSING in capsys.readouterr().err
    document = json.loads((out / FILES[0]).read_text())
    assert {row["defense"] for row in document["rows"]} == {"fedavg", "median"}
    assert entry["runs"] == [run["id"] for run in document["runs"]]
    assert entry["fingerprint"] == "cpu" and entry["code"] == {"defense median": "a"}
    sheets = entry["data_sheets"]
    assert isinstance(sheets, dict) and "Source: " in sheets["median"]
    (cell,) = (
        cell
        for cell in document["cells"]
        if (cell["attack"], cell["defense"]) == (BADNETS, "median")
    )
    figures = entry["figures"]
    assert isinstance(figures, list)
    assert figures[0]["reproduced"] == cell["attack_success_rate"]
    assert figures[0]["setting"] == cell["setting"] and figures[1]["setting"] is None
    page = (out / "ENTRY.md").read_text()
    assert f"| digits | {BADNETS} | attack_success_rate | 12.3 | Table 2 |" in page
    assert "| 93.1 | Table 3 | not run |" in page and "## Data sheet: median" in page


def test_figures_that_no_run_reproduces_are_no_entry(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "paper.csv", tmp_path / "entry"
    arguments = ["submit", str(board), "median", "--out", str(out), "--reported", str(file)]
    file.write_text(REPORTED)
    assert cli.main(arguments) == 2
    told = capsys.readouterr().err
    assert f"paper.csv: {MISSING}; run what is missing" in told
    assert told.count("\n") == 1 and "--partial" in told
    assert not out.exists()
    # a cell that was run and lacks the figure reproduces it as little
    file.write_text(REPORTED.replace("nothing like it,clean_accuracy", "none,attack_success_rate"))
    assert cli.main(arguments) == 2
    assert "attack_success_rate on digits, attack 'none' (Table 3)" in capsys.readouterr().err
    file.write_text(REPORTED.rpartition("digits")[0])
    assert cli.main(arguments) == 0
    assert "no run" not in capsys.readouterr().err


def test_many_missing_figures_are_one_line(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"cifar10,none,clean_accuracy,0.9,Table {number}" for number in range(5)]
    (tmp_path / "paper.csv").write_text("\n".join([REPORTED.partition("\n")[0], *lines]))
    arguments = ["submit", str(board), "median", "--out", str(tmp_path / "entry")]
    assert cli.main([*arguments, "--reported", str(tmp_path / "paper.csv")]) == 2
    told = capsys.readouterr().err
    assert "reproduces 5 of 5 reported figures" in told and "(Table 2); …; run" in told
    assert told.count("\n") == 1


def test_an_attack_comes_with_every_defense_and_the_runs_without_attack(
    board: Path, tmp_path: Path
) -> None:
    submitted(board, BADNETS, tmp_path / "entry")
    document = json.loads((tmp_path / "entry" / FILES[0]).read_text())
    assert len(document["rows"]) == 20
    assert {cell["attack"] for cell in document["cells"]} == {"none", BADNETS}


def test_an_entry_joins_the_board_it_is_made_for(board: Path, tmp_path: Path) -> None:
    """A stronger attack becomes the worst case of whatever it breaks."""
    strong = list(ATTACKS)[2]
    submitted(board, strong, tmp_path / "entry")
    without = [run for run in RUNS if "model_replacement" not in str(run.spec["attack"])]
    grown = write(tmp_path / "grown", without)
    arguments = ["merge", grown, str(tmp_path / "entry"), "--out", grown]
    before = worst_attacks(grown)
    assert cli.main(arguments) == 0
    after = worst_attacks(grown)
    for defense in ("fedavg", "median"):
        assert (before[defense], after[defense]) == (BADNETS, strong)


def worst_attacks(folder: str) -> dict[str, str]:
    rows = json.loads(Path(folder, FILES[0]).read_text())["rows"]
    return {row["defense"]: row["worst_attack"] for row in rows}


@pytest.mark.parametrize(
    ("chain", "reported", "said"),
    [
        ("medain", "", "holds no 'medain'; did you mean 'median'"),
        ("fedavg", "", "holds no 'fedavg'"),
        ("median", "dataset,attack,metric,reported,where\n", "it reports no figure"),
        ("median", "dataset,attack\nd,a\n", "line 2: no metric; its columns are dataset, attack"),
        (
            "median",
            "dataset,attack,metric,reported,where\nd,a,accuracy,1,x\n",
            "unknown metric 'accuracy'",
        ),
        (
            "median",
            "dataset,attack,metric,reported,where\nd,a,clean_accuracy,93.1,x\n",
            "reported='93.1' is no share from 0 to 1",
        ),
    ],
)
def test_bad_input_is_one_line(
    board: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    chain: str,
    reported: str,
    said: str,
) -> None:
    (tmp_path / "paper.csv").write_text(reported or REPORTED)
    arguments = ["submit", str(board), chain, "--out", str(tmp_path / "entry")]
    assert cli.main([*arguments, "--reported", str(tmp_path / "paper.csv")]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert not (tmp_path / "entry").exists()
