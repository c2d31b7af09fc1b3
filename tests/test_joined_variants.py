"""Variants of a defense that never meet in one setting are one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from backstop.platform.contract import Spec
from backstop.platform.results.leaderboard.best import best_runs
from backstop.platform.results.leaderboard.contrasts import contrast_defenses
from backstop.platform.results.leaderboard.verification import differences, recompute, sample_runs
from backstop.platform.results.report.by_round import runs_of_scene
from backstop.platform.results.report.details import details
from backstop.platform.results.tables.columns import ranked_rows
from backstop.platform.results.tables.markdown import markdown
from backstop.platform.results.tracking.runs import Run
from tests.boards import BASE, run
from tests.comparisons import A, board, figures, rows

SEEDS = (0, 1)
WIDE = BASE.replace(clients=100, per_round=20)
TWO = {"krum(f=2)": BASE, "krum(f=4)": WIDE}


def federation(base: Spec, defenses: Mapping[str, float]) -> list[Run]:
    """Defense → its attack success, in one setting with what it is compared with."""
    listed = []
    for seed in SEEDS:
        listed += [
            run("none", "fedavg", seed, figures(1.0), base),
            run(A, "fedavg", seed, figures(1.0, 0.0), base, dormant=True),
            run(A, "fedavg", seed, figures(1.0, 1.0), base),
        ]
        for defense, success in defenses.items():
            listed.append(run(A, defense, seed, figures(1.0, success), base))
    return listed


def two_settings() -> list[Run]:
    """krum is told the number of attackers of each."""
    return [
        *federation(BASE, {"krum(f=2)": 0.25, "median": 0.75}),
        *federation(WIDE, {"krum(f=4)": 0.125, "median": 0.75}),
    ]


def test_a_defense_told_another_f_in_each_setting_is_one_row() -> None:
    document = board(two_settings())
    ranked = rows(document)
    assert list(ranked) == ["krum(f=varies)", "median", "fedavg"]
    krum = ranked["krum(f=varies)"]
    assert (krum["rank"], krum["missing"], krum["variant"]) == (1, 0, False)
    assert krum["attack_success_rate"]["mean"] == (0.25 + 0.125) / 2
    assert krum["defense_stages"] == [{"name": "krum", "params": {"f": "varies"}}]
    assert document["joined"] == dict.fromkeys(TWO, "krum(f=varies)")
    for setting in document["boards"]:
        assert {row["defense"] for row in setting["rows"]} == set(ranked)
    assert "| krum§ |" in markdown(document)  # which needs no parameter to be told from others


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(federation(BASE, {"krum(f=1)": 0.5})[-2:], id="another f beside it"),
        pytest.param(
            [run("none", "krum(f=1)", 0, figures(1.0), WIDE)], id="another f without attack"
        ),
    ],
)
def test_variants_that_meet_stay_apart(more: list[Run]) -> None:
    document = board([*two_settings(), *more])
    assert document["joined"] == {}
    assert set(TWO) <= rows(document).keys()


def test_a_variant_that_a_search_has_chosen_stays_apart() -> None:
    listed = two_settings()
    chosen: dict[str, Any] = {
        "side": "defense",
        "ids": [item.id for item in listed if item.spec["defense"][:1] and "f" in _params(item)],
        "trials": 8,
        "seeds": [0, 1],
        "objective": "score",
    }
    document = board(listed, searched=[chosen])
    assert document["joined"] == {}


def _params(item: Run) -> Mapping[str, Any]:
    params: Mapping[str, Any] = item.spec["defense"][0]["params"]
    return params


def test_only_what_differs_varies() -> None:
    document = board(
        [
            *federation(BASE, {"norm_clip(norm=1.0)+trimmed_mean(trim_fraction=0.2)": 0.5}),
            *federation(WIDE, {"norm_clip(norm=0.5)+trimmed_mean(trim_fraction=0.2)": 0.5}),
        ]
    )
    joined = "norm_clip(norm=varies)+trimmed_mean(trim_fraction=0.2)"
    assert joined in rows(document)


def test_a_row_finds_its_runs_under_their_own_parameters() -> None:
    listed = two_settings()
    document = board(listed)
    best = best_runs(document)
    assert best.defense == "krum(f=varies)"
    assert best.ids == {item.id for item in listed if item.spec["defense"][:1] and _params(item)}

    (behind,) = [
        item
        for item in details(document, ranked_rows(document), listed)
        if item.row.fields["defense"] == best.defense
    ]
    assert sorted(str(line.variant) for line in behind.cells) == ["krum(f=2)", "krum(f=4)"]
    for line in behind.cells:
        assert len(line.runs) == len(SEEDS)
        assert str(line.variant).removeprefix("krum") in line.command.replace("'", "")

    drawn = {str(mark.row["defense"]): ids for mark, ids in runs_of_scene(document)}
    assert len(drawn[best.defense]) == len(SEEDS)


def test_a_document_with_joined_rows_is_computed_again_and_compared() -> None:
    document = board(two_settings())
    assert differences(document, recompute(document)) == []
    cell = next(n for n, cell in enumerate(document["cells"]) if "krum" in cell["defense"])
    doubted = sample_runs(document, 2, [f"cells[{cell}] is wrong"])
    assert {item["spec"]["defense"][0]["name"] for item in doubted} == {"krum"}
    contrast = contrast_defenses(document, "krum", "median")
    assert contrast["first"] == "krum(f=varies)"
    assert len(contrast["cells"]) == 2
