"""``backstop compare``: differences worked out by hand, what decides them, what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import backstop
from backstop.platform import cli
from backstop.platform.commands.compare import with_more_seeds
from backstop.platform.params import BadInput
from backstop.platform.results.leaderboard.changes import board_changes
from backstop.platform.results.leaderboard.contrasts import contrast_defenses
from backstop.platform.results.leaderboard.document import encode_document
from backstop.platform.results.leaderboard.ranking import build_document
from backstop.platform.results.tracking.runs import Run
from tests.boards import run
from tests.boards import runs as made_up_runs

STRONG, WEAK = "badnets(size=3)", "label_flip(target=0)"
DAMAGE = "gaussian(sigma=1.0)"
Table = Mapping[tuple[str, str], list[tuple[float, float]]]


def board_of(
    table: Table,
    experiment: str = "hand",
    **changes: Any,
) -> dict[str, Any]:
    """A leaderboard of (attack, defense) → (accuracy, attack success) for seeds 0, 1, …"""
    return build_document(runs_of(table, **changes), experiment)


def runs_of(table: Table, **changes: Any) -> list[Run]:
    return [
        run(
            *cell,
            seed,
            {"clean_accuracy": accuracy, "attack_success_rate": success},
            **changes,
        )
        for cell, pairs in table.items()
        for seed, (accuracy, success) in enumerate(pairs)
    ]


@cache
def made_up(seeds: int, experiment: str = "made up") -> dict[str, Any]:
    """A leaderboard of twenty defenses."""
    return build_document(made_up_runs(seeds), experiment)


def by_hand() -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Two attacks and two seeds; in eighths and sixteenths, so that every mean is exact."""
    return {
        (STRONG, "fedavg"): [(0.875, 1.0), (0.875, 1.0)],
        (WEAK, "fedavg"): [(0.875, 0.5), (0.875, 0.5)],
        (STRONG, "median"): [(0.75, 0.25), (0.75, 0.5)],
        (WEAK, "median"): [(0.875, 0.25), (0.875, 0.25)],
        (STRONG, "krum(f=1)"): [(0.75, 0.0), (0.625, 0.25)],
        (WEAK, "krum(f=1)"): [(0.875, 0.25), (0.75, 0.5)],
    }


def measure(contrast: Mapping[str, Any], name: str) -> dict[str, Any]:
    (entry,) = [item for item in contrast["figures"] if item["measure"] == name]
    return dict(entry)


# -- two defenses


def test_differences_are_those_within_the_seeds() -> None:
    contrast = contrast_defenses(board_of(by_hand()), "krum(f=1)", "median")
    success = measure(contrast, "attack_success_rate")
    assert success["seeds"] == [0, 1]
    assert success["first"]["mean"] == 0.25
    assert success["second"]["mean"] == 0.3125
    # seed 0: (0 + 0.25 - 0.25 - 0.25) / 2; seed 1: (0.25 + 0.5 - 0.5 - 0.25) / 2
    assert success["difference"] == {
        "mean": -0.0625,
        "low": -0.125,
        "high": 0.0,
        "n": 2,
        "kind": "range",
    }
    assert success["p_value"] is None
    assert contrast["apart"] is None
    # accuracy: the same under seed 0, an eighth less under seed 1
    assert measure(contrast, "clean_accuracy")["difference"]["mean"] == -0.0625
    # DER: what success gains and accuracy loses, which is as much
    assert measure(contrast, "der")["difference"]["mean"] == 0


def test_the_figures_are_those_of_the_rows() -> None:
    document = made_up(3)
    contrast = contrast_defenses(document, "krum", "norm_clip(norm=1.0)+median")
    rows = {row["defense"]: row for row in document["rows"]}
    for side in ("first", "second"):
        for name in ("score", "der", "attack_success_rate", "clean_accuracy"):
            own = rows[contrast[side]][name]
            assert measure(contrast, name)[side]["mean"] == pytest.approx(own["mean"], abs=1e-12)


def test_the_cells_that_decide_come_first_and_add_up() -> None:
    document = made_up(3)
    contrast = contrast_defenses(document, "krum", "median")
    contributions = [cell["contribution"] for cell in contrast["cells"]]
    assert len(contributions) == 3
    rows = {row["defense"]: row for row in document["rows"]}
    balances = [
        1 - row["excess_success"]["mean"] - row["cost_under_attack"]["mean"]
        for row in (rows["krum(f=4)"], rows["median"])
    ]
    assert sum(contributions) == pytest.approx(balances[0] - balances[1])
    sizes = [abs(contribution) for contribution in contributions]
    assert sizes == sorted(sizes, reverse=True)


def test_from_six_seeds_on_they_are_told_apart_or_not() -> None:
    document = made_up(8)
    clear = contrast_defenses(document, "krum", "fedavg")
    assert clear["apart"] is True
    assert clear["figures"][0]["difference"]["kind"] == "95%"
    assert clear["leading"] == "score"
    assert clear["figures"][0]["p_value"] < 0.001
    assert clear["figures"][0]["more_seeds"] == 0
    close = contrast_defenses(
        document,
        "invariant(mask_threshold=0.6, trim_fraction=0.1)",
        "invariant(mask_threshold=0.6, trim_fraction=0.3)",
    )
    assert close["apart"] == (close["figures"][0]["p_value"] <= 0.05)


def test_an_untargeted_attack_has_no_success_and_stops_no_comparison() -> None:
    runs = runs_of(by_hand())
    for defense in ("fedavg", "median", "krum(f=1)"):
        runs.append(run(DAMAGE, defense, 0, {"clean_accuracy": 0.5}))
    contrast = contrast_defenses(build_document(runs, "hand"), "krum", "median")
    assert measure(contrast, "attack_success_rate")["seeds"] == [0, 1]
    assert measure(contrast, "attack_success_rate")["difference"]["mean"] == -0.0625


def test_only_cells_that_both_have_count() -> None:
    table = by_hand()
    del table[WEAK, "median"]
    contrast = contrast_defenses(board_of(table), "krum", "median")
    assert [cell["attack"] for cell in contrast["cells"]] == [STRONG]
    assert [cell["attack"] for cell in contrast["only_first"]] == [WEAK]
    assert contrast["only_second"] == []
    assert measure(contrast, "attack_success_rate")["difference"]["mean"] == -0.25


def test_rows_that_met_nothing_in_common_are_refused() -> None:
    table = by_hand()
    del table[WEAK, "median"], table[STRONG, "krum(f=1)"]
    with pytest.raises(BadInput, match="met no attack in common"):
        contrast_defenses(board_of(table), "krum", "median")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("krumm", "median"), "has no row 'krumm'; did you mean 'krum'"),
        (("krum", "krum(f=4)"), r"are one defense, krum\(f=4\)"),
        (("invariant", "krum"), "'invariant' is the name of 12 rows"),
    ],
)
def test_names_that_mean_no_row_are_refused(names: tuple[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        contrast_defenses(made_up(2), *names)


# -- two leaderboards


def test_a_board_has_not_changed_from_itself() -> None:
    document = made_up(2)
    changes = board_changes(document, document)
    assert changes["cells"] == []
    assert changes["only_first"] == changes["only_second"] == []
    assert all(row["ranks"][0] == row["ranks"][1] for row in changes["rows"])
    assert all(row["changes"]["score"]["mean"] == 0 for row in changes["rows"])


def test_rows_that_moved_come_first_with_their_change() -> None:
    better = by_hand()
    better[STRONG, "median"] = [(0.875, 0.0), (0.875, 0.0)]
    changes = board_changes(board_of(by_hand(), "old"), board_of(better, "new"))
    first = changes["rows"][0]
    assert first["defense"] == "median"
    assert first["changes"]["attack_success_rate"]["mean"] == -0.1875
    assert first["changes"]["clean_accuracy"]["mean"] == 0.0625
    assert first["second"]["der"] - first["first"]["der"] == pytest.approx(0.125)
    # the same ids with other figures: somebody's runs are wrong
    assert [(cell["attack"], cell["defense"]) for cell in changes["cells"]] == [(STRONG, "median")]
    assert changes["cells"][0]["other_figures"] == [0, 1]
    assert changes["cells"][0]["other_ids"] == []


def test_cells_of_other_seeds_and_ids_are_named() -> None:
    first = board_of(by_hand())
    table = {**by_hand(), (STRONG, "median"): [(0.75, 0.25), (0.75, 0.5), (0.75, 0.5)]}
    second = board_of(table)
    other = next(item for item in second["runs"] if item["spec"]["defense"])
    other["id"] = "another"
    changes = board_changes(first, second)
    entries = {cell["defense"]: cell for cell in changes["cells"]}
    assert entries["median"]["seeds"] == [[0, 1], [0, 1, 2]]
    assert sum(len(cell["other_ids"]) for cell in changes["cells"]) == 1


def test_what_one_board_has_alone_is_said() -> None:
    table = by_hand()
    del table[WEAK, "krum(f=1)"], table[STRONG, "krum(f=1)"]
    changes = board_changes(board_of(by_hand()), board_of(table))
    assert changes["only_first"] == ["krum(f=1)"]
    assert changes["only_second"] == []
    assert {tuple(map(len, cell["seeds"])) for cell in changes["cells"]} == {(2, 0)}


# -- seeds


def test_more_seeds_are_added_to_those_that_are_there() -> None:
    assert with_more_seeds([0, 1, 2], 4) == "7"
    assert with_more_seeds([5, 7], 2) == "0,1,5,7"
    assert with_more_seeds([1, 2], 1) == "3"
    assert with_more_seeds([0, 9], 3) == "0,1,2,3,9"


# -- the command and the notebook


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with leaderboards of two and of eight seeds."""
    monkeypatch.chdir(tmp_path)
    for seeds in (2, 8):
        document = made_up(seeds, "quickstart")
        (tmp_path / f"{seeds}.json").write_text(encode_document(document))
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["compare", *arguments]) == 0
    return capsys.readouterr().out


def test_few_seeds_are_said_with_the_sweep_that_adds_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(capsys, "krum", "multi_krum", "--board", "2.json")
    assert "the range of 2 seeds, which is no interval" in out
    assert "under six seeds nothing tells the two apart" in out
    document = json.loads(shown(capsys, "krum", "multi_krum", "--board", "2.json", "--json"))
    more = document["figures"][0]["more_seeds"]
    assert more >= 4
    assert document["command"] == f"backstop sweep quickstart --seeds {2 + more}"
    assert document["command"] in out


def test_enough_seeds_are_said_to_be_enough(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(capsys, "krum", "fedavg", "--board", "8.json")
    assert "the 95 % interval over 8 seeds" in out
    assert "the two are told apart" in out
    assert "the score counts the worst attack: badnets+model_replacement for the first" in out
    assert "< 0.001" in out
    assert "more seed" not in out


def test_an_experiment_that_is_no_space_has_a_space_to_fill_in(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = made_up(2, "my experiment")
    Path("mine.json").write_text(encode_document(document))
    out = shown(capsys, "krum", "multi_krum", "--board", "mine.json")
    assert "backstop sweep SPACE --experiment 'my experiment' --seeds" in out


def test_two_boards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "2.json", "8.json")
    assert "from 2.json to 8.json" in out
    assert "80 cells are not of the same runs" in out
    assert "0, 1 → 0-7" in out
    assert "all cells are of the same runs" in shown(capsys, "8.json", "8.json")
    document = json.loads(shown(capsys, "2.json", "8.json", "--json"))
    assert len(document["cells"]) == 80


def test_a_folder_is_its_leaderboard(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("board").mkdir()
    Path("board/leaderboard.json").write_bytes(Path("2.json").read_bytes())
    assert "all cells are of the same runs" in shown(capsys, "board", "2.json")


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["krumm", "median", "--board", "2.json"], ["did you mean 'krum'?"]),
        (["krum", "median", "--board", "3.json"], ["there is no such file", "did you mean"]),
        (["krum", "median"], ["there is no such file", "--board FILE or --experiment NAME"]),
        (["krum", "median", "--board", "2.json", "--experiment", "x"], ["give one of them"]),
        (["krum", "median", "--experiment", "x"], ["no database yet"]),
        (["krum", "--board", "2.json"], ["B"]),
    ],
)
def test_refusals_are_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    messages: list[str],
) -> None:
    assert cli.main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for message in messages:
        assert message in err


RUN = (
    "run --device cpu --rounds 3 --clients 10 --per-round 5 --root-size 20 --malicious 0.4"
    " --selection fixed --attack badnets(share=0.5)"
)


def test_defenses_of_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for defense in ("fedavg", "median"):
        assert cli.main([*RUN.split(), "--defense", defense]) == 0
    capsys.readouterr()
    arguments = ("fedavg", "median", "--experiment", "runs", "--json")
    document = json.loads(shown(capsys, *arguments))
    assert measure(document, "clean_accuracy")["seeds"] == [0]
    assert document["command"] is None  # one seed says nothing of how many are missing


def test_a_notebook_compares_defenses_and_boards() -> None:
    board = backstop.Leaderboard(made_up(8))
    pair = backstop.compare("krum", "median", board)
    assert "krum against median" in repr(pair)
    frame = pair.frame()
    assert list(frame["measure"]) == ["score", "der", "attack_success_rate", "clean_accuracy"]
    assert frame["difference_mean"][0] == pair.document["figures"][0]["difference"]["mean"]
    boards = backstop.compare(board, board)
    assert "all cells are of the same runs" in repr(boards)
    assert set(boards.frame()["defense"]) == set(board.frame()["defense"])
    with pytest.raises(BadInput, match="two leaderboards, or two defenses by name"):
        backstop.compare("krum", "median")
