"""Boards of several machines are joined to the board that one machine would have made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import backstop
from backstop.platform import cli
from backstop.platform.results.leaderboard.document import encode_document
from backstop.platform.results.leaderboard.ranking import build_document
from backstop.platform.results.report.page import page
from backstop.platform.results.tables.files import write_leaderboard
from backstop.platform.results.tracking.runs import Run
from tests.boards import run, runs

RUNS = [item._replace(code={"defense median": "a"}, data="d") for item in runs()]
PLAN = {item.id: f"the run {item.id[-6:]}" for item in RUNS} | {"f" * 64: "a run that nobody did"}
FILES = ("leaderboard.json", "leaderboard.csv", "leaderboard.md", "leaderboard.tex", "runs.csv")


def write(folder: Path, some: Sequence[Run], name: str = "mine", mix: bool = False) -> str:
    """The folder of results of these runs, planned as one sweep."""
    searched = [
        {
            "side": "defense",
            "ids": [RUNS[-1].id],
            "trials": 3,
            "seeds": 1,
            "objective": "der",
        }
    ]
    document = build_document(some, name, planned=PLAN, mix=mix, searched=searched)
    write_leaderboard(document, some, folder)
    return str(folder)


def merged(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    code = cli.main(["merge", *arguments])
    return (code, *capsys.readouterr())


def test_two_halves_are_the_whole_byte_for_byte(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whichever comes first, and though some runs are in both."""
    third = len(RUNS) // 3
    whole = Path(write(tmp_path / "whole", RUNS))
    one = write(tmp_path / "one", RUNS[: 2 * third])
    other = write(tmp_path / "other", RUNS[third:])
    assert len(json.loads((tmp_path / "one/leaderboard.json").read_text())["missing_runs"]) > 1
    for number, halves in enumerate([(one, other), (other, f"{one}/leaderboard.json")]):
        out = tmp_path / f"out {number}"
        code, shown, said = merged(capsys, *halves, "--out", str(out))
        assert code == 0 and "invariant" in shown and f"wrote {out / FILES[0]}" in said
        for name in FILES:
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    document = json.loads((whole / FILES[0]).read_text())
    assert (out / "leaderboard.html").read_text() == page(document, RUNS), "without a store"
    missing = json.loads((out / FILES[0]).read_text())["missing_runs"]
    assert missing == [{"id": "f" * 64, "run": "a run that nobody did"}]
    assert backstop.merge(one, other).document == document


def test_a_board_grows_in_its_own_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    board = write(tmp_path / "board", RUNS[:-6])
    entry = write(tmp_path / "entry", RUNS[-8:])
    assert merged(capsys, board, entry, "--out", board)[0] == 0
    whole = write(tmp_path / "whole", RUNS)
    assert Path(board, FILES[0]).read_bytes() == Path(whole, FILES[0]).read_bytes()


@pytest.mark.parametrize(("figure", "said"), [(0.5, "0.5"), (-0.0, "-0.0")])
def test_boards_that_disagree_on_a_run_are_not_joined(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, figure: float, said: str
) -> None:
    plain = RUNS[0]._replace(metrics={**RUNS[0].metrics, "final/train_loss": 0.0})
    changed = plain._replace(metrics={**plain.metrics, "final/train_loss": figure})
    one = write(tmp_path / "one", [plain, *RUNS[1:3]])
    other = write(tmp_path / "other", [changed, *RUNS[1:3]])
    code, shown, _ = merged(capsys, one, other, "--out", str(tmp_path / "out"))
    where = f"run {plain.id[:12]} (none × fedavg, seed 0): metrics.final/train_loss"
    assert (code, shown) == (1, f"{where}: {one} 0.0, {other} {said}\n")
    assert not (tmp_path / "out").exists()
    with pytest.raises(backstop.BadInput, match="disagree in 1 places, first in run"):
        backstop.merge(one, other)


def test_what_is_not_comparable_is_refused_until_told_to_mix(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    elsewhere = [item._replace(fingerprint="cuda") for item in RUNS[40:]]
    one, other = write(tmp_path / "one", RUNS[:40]), write(tmp_path / "other", elsewhere)
    out = str(tmp_path / "out")
    code, _, said = merged(capsys, one, other, "--out", out)
    assert code == 2 and "2 kinds of device" in said and said.count("\n") == 1
    assert not Path(out).exists()
    assert merged(capsys, one, other, "--out", out, "--mix-fingerprints")[0] == 0
    whole = write(tmp_path / "whole", [*RUNS[:40], *elsewhere], mix=True)
    assert Path(out, FILES[0]).read_bytes() == Path(whole, FILES[0]).read_bytes()
    assert Path(out, "runs.csv").read_bytes() == Path(whole, "runs.csv").read_bytes()


def test_digests_of_changed_code_stand_side_by_side(tmp_path: Path) -> None:
    changed = [item._replace(code={"defense median": "b"}) for item in RUNS[40:]]
    boards = write(tmp_path / "one", RUNS[:40]), write(tmp_path / "other", changed)
    together = write(tmp_path / "together", [*RUNS[:40], *changed])
    document = backstop.merge(*boards).document
    assert encode_document(document) == Path(together, FILES[0]).read_text()
    assert document["code"] == {"defense median": "a | b"}


def test_boards_of_several_experiments_need_a_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    boards = write(tmp_path / "one", RUNS[:40]), write(tmp_path / "other", RUNS[40:], "theirs")
    code, _, said = merged(capsys, *boards, "--out", str(tmp_path / "out"))
    assert code == 2 and "2 experiments (mine, theirs); --experiment NAME" in said
    arguments = [*boards, "--out", str(tmp_path / "out"), "--experiment", "ours", "--json"]
    code, shown, _ = merged(capsys, *arguments)
    assert code == 0 and json.loads(shown)["experiment"] == "ours"
    code, _, said = merged(capsys, *arguments[:-2], "a/b")
    assert code == 2 and "experiment name 'a/b' is not allowed" in said


def test_a_document_alone_has_its_fingerprint_and_no_seconds(tmp_path: Path) -> None:
    folder = Path(write(tmp_path / "one", RUNS))
    (folder / "runs.csv").unlink()
    assert cli.main(["merge", str(folder), "--out", str(tmp_path / "out")]) == 0
    again = (tmp_path / "out" / FILES[0]).read_bytes()
    assert again == (folder / FILES[0]).read_bytes()
    assert "total_train_s" not in (tmp_path / "out" / "runs.csv").read_text()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("leaderboard.json", "{}", "it is no leaderboard"),
        ("runs.csv", f"id,total_train_s\n{RUNS[0].id},soon\n", "total_train_s='soon' is no number"),
        ("runs.csv", "name\nx\n", "its runs cannot be read (KeyError('id'))"),
    ],
)
def test_what_is_no_board_is_bad_input(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: str, said: str
) -> None:
    folder = Path(write(tmp_path / "one", RUNS))
    (folder / name).write_text(content)
    code, _, words = merged(capsys, str(folder), "--out", str(tmp_path / "out"))
    assert code == 2 and said in words and words.count("\n") == 1
    code, _, words = merged(capsys, str(tmp_path / "no"), "--out", str(tmp_path / "out"))
    assert code == 2 and "No such file" in words


def test_the_page_of_a_board_needs_no_store(tmp_path: Path) -> None:
    """Attack success by round stands in the document."""
    from backstop.platform.results.leaderboard.published import read_published

    board = read_published(Path(write(tmp_path / "one", RUNS)))
    assert "Attack success by round" in page(board.document, board.runs)
    lone = read_published(Path(write(tmp_path / "two", [run("none", "fedavg", 0, {})])))
    assert lone.runs[0].curves["round/attack_success_rate"] == []
