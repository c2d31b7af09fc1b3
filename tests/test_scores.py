"""Who is ranked where, by which figures: for each rule a board that comes out otherwise without."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from backstop.platform.results.figures.means import Estimate, average, estimate
from backstop.platform.results.figures.wording import margin, spread, told
from backstop.platform.results.leaderboard import rule
from backstop.platform.results.leaderboard.document import encode_document
from backstop.platform.results.leaderboard.entries import wilson
from backstop.platform.results.leaderboard.standings import ranks_of
from backstop.platform.results.leaderboard.verification import differences, recompute
from backstop.platform.results.tables.markdown import markdown
from backstop.platform.results.tables.notes import ends_note, footnotes
from backstop.platform.results.tables.terminal import terminal_text
from backstop.platform.results.tracking.runs import Run
from tests.boards import BASE, run, runs
from tests.comparisons import A, B, attacked, board, cell_of, clean, duel, figures, rows, twins

SIX = range(6)
WOBBLE = [0.0, 0.02, -0.02, 0.01, -0.01, 0.0]


def around(mean: float, shift: int = 0) -> list[float]:
    """Six successes around a mean."""
    return [mean + WOBBLE[(seed + shift) % 6] for seed in SIX]


def ranked(document: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Defense → rank and the ranks that are left open."""
    return {
        row["defense"]: (row["rank"], row["rank_low"], row["rank_high"]) for row in document["rows"]
    }


# figures


def test_two_seeds_have_a_range_and_no_interval() -> None:
    document = board(duel({"median": [0.25, 0.75]}))
    score = rows(document)["median"]["score"]
    assert score == {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 2, "kind": "range"}
    assert told(score) == "50.0 (25.0 to 75.0, range of 2 seeds)"
    assert ends_note(document).startswith("beside a mean the range of 2 seeds")
    printed = terminal_text(document, 100) + markdown(document).replace(rule.RULE, "")
    assert "interval" not in printed


def test_from_six_seeds_on_there_is_an_interval() -> None:
    document = board(duel({"median": around(0.5)}))
    score = rows(document)["median"]["score"]
    assert (score["n"], score["kind"]) == (6, "95%")
    assert score["low"] < score["mean"] < score["high"]
    assert margin(score) == "50.0 ±1.6"
    skewed = {"mean": 0.8, "low": 0.25, "high": 1.0, "n": 6, "kind": "95%"}
    assert margin(skewed) == "80.0 -55.0/+20.0"
    assert spread(score) == "50.0 (48.4 to 51.6)"
    assert "the 95 % interval over 6 seeds" in terminal_text(document, 100)


def test_a_cost_that_is_the_same_for_every_seed_has_no_width() -> None:
    """However much the seeds differ: figures are paired."""
    accuracies = [0.5, 0.75, 1.0, 0.625]
    given = [run(A, "fedavg", seed, figures(value, 1.0)) for seed, value in enumerate(accuracies)]
    given += [
        run(A, "median", seed, figures(value - 0.125, 0.5)) for seed, value in enumerate(accuracies)
    ]
    cost = rows(board(given))["median"]["accuracy_cost"]
    assert (cost["mean"], cost["low"], cost["high"]) == (0.125, 0.125, 0.125)


def test_an_average_is_over_the_seeds_that_all_have() -> None:
    both = average([estimate({0: 0.25, 1: 1.0}), estimate({0: 0.75, 2: 0.0}), None])
    assert both == Estimate(0.5, {0: 0.5})
    apart = average([estimate({0: 0.25}), estimate({1: 0.75})])
    assert apart == Estimate(0.5, {})
    assert apart.figure() == {"mean": 0.5, "low": 0.5, "high": 0.5, "n": 0, "kind": "range"}
    assert average([None]) is None


# natural success, excess, families


def test_natural_success_is_that_of_the_same_defense() -> None:
    """A defense that sends every input to the target's class stops nothing, and starts nothing."""
    given = [*duel({"median": [0.75], "krum(f=1)": [0.75]}), *twins(A, [0], 0.75, "median")]
    document = board(given)
    assert rows(document)["median"]["excess_success"]["mean"] == 0.0
    assert rows(document)["krum(f=1)"]["excess_success"]["mean"] == 0.75
    assert cell_of(document, A, "median")["natural_success"]["mean"] == 0.75
    assert cell_of(document, A, "krum(f=1)")["borrowed_twins"] == [0]
    assert any("for want of their own: krum(f=1)" in note for note in footnotes(document))


def test_variants_of_an_attack_are_one_family() -> None:
    """Ten strengths of one attack do not outvote another."""
    given = [*clean([0]), *twins("badnets", [0]), *twins(B, [0])]
    chains = [f"badnets+model_replacement(strength={strength})" for strength in range(1, 5)]
    for defense, success in (("fedavg", 1.0), ("median", 0.5)):
        for attack in chains:
            given += attacked(attack, defense, [success])
    given += [*attacked(B, "fedavg", [1.0]), *attacked(B, "median", [0.0])]
    median = rows(board(given))["median"]
    assert median["families"] == ["badnets+model_replacement", "label_flip"]
    assert median["excess_success"]["mean"] == 0.25
    assert len(median["attacks"]) == 5


def test_settings_count_alike_however_many_attacks_they_have() -> None:
    longer = BASE.replace(rounds=40)
    given = [*duel({"median": [1.0]}), *duel({"median": [0.5]}, B)[2:], *twins(B, [0])]
    given += [run("none", "fedavg", 0, figures(1.0), longer)]
    given += [run(A, "fedavg", 0, figures(1.0, 0.0), longer, dormant=True)]
    given += [
        run(A, defense, 0, figures(1.0, rate), longer)
        for defense, rate in (("fedavg", 1.0), ("median", 0.0))
    ]
    document = board(given)
    assert rows(document)["median"]["excess_success"]["mean"] == 0.75 / 2
    titles = {item["title"]: item["rows"] for item in document["boards"]}
    assert list(titles) == ["digits, rounds=20", "digits, rounds=40"]
    excess = [rows({"rows": item})["median"]["excess_success"]["mean"] for item in titles.values()]
    assert excess == [0.75, 0.0]
    assert all(item["share"] == 0.2 for item in document["boards"])
    assert "## digits, rounds=40" in markdown(document)


# the worst attack


def test_the_worst_of_many_equal_attacks_is_no_worse_than_each() -> None:
    """The maximum of noisy means is biased; chosen on one half and told on the other it is not."""
    draws = np.random.default_rng(0)
    attacks = [f"badnets(size={size})" for size in range(1, 11)]
    excess, maxima = [], []
    for _ in range(60):
        means = []
        given = clean(range(4))
        for attack in attacks:
            successes = [draws.normal(0.5, 0.1) for _ in range(4)]
            means.append(math.fsum(successes) / 4)
            given += [*twins(attack, range(4)), *attacked(attack, "median", successes)]
        excess.append(rows(board(given))["median"]["worst_excess"]["mean"])
        maxima.append(max(means))
    error = 0.1 / math.sqrt(4 * 60)
    assert abs(math.fsum(excess) / 60 - 0.5) < 4 * error
    assert math.fsum(maxima) / 60 > 0.55


def test_the_worst_attack_is_the_one_that_is_worst_on_the_other_half() -> None:
    given = [*clean([0, 1]), *twins(A, [0, 1]), *twins(B, [0, 1])]
    given += [*attacked(A, "median", [0.75, 0.25]), *attacked(B, "median", [0.5, 0.5])]
    worst = rows(board(given))["median"]["worst_excess"]
    # chosen on seed 1: B, told on seed 0; chosen on seed 0: A, told on seed 1
    assert (worst["low"], worst["high"]) == (0.25, 0.5)


def test_a_single_seed_that_chooses_and_tells_is_marked() -> None:
    one = board([*duel({"median": [0.5]}), *duel({"median": [0.75]}, B)[1:]])
    assert rows(one)["median"]["worst_excess"]["mean"] == 0.75
    assert "median¶" in terminal_text(one, 100)
    assert any(note.startswith("¶ has one seed") for note in footnotes(one))
    two = board([*duel({"median": [0.5, 0.5]}), *duel({"median": [0.75, 0.75]}, B)[2:]])
    assert "¶" not in terminal_text(two, 100)


# cost, DER, learning


def test_a_collapsed_baseline_earns_nobody_der() -> None:
    """FedAvg at 10 % accuracy: a defense that holds 20 % would have a perfect one."""
    given = [*clean([0]), *twins(A, [0]), *attacked(A, "fedavg", [1.0], 0.1)]
    given += attacked(A, "median", [0.0], 0.2)
    document = board(given)
    median = rows(document)["median"]
    assert median["der"] is None
    assert median["cost_under_attack"]["mean"] == 0.8
    assert median["score"]["mean"] == pytest.approx(0.2)
    assert cell_of(document, A, "median")["collapsed_seeds"] == [0]
    assert any(
        "no DER, because FedAvg collapsed: badnets (seed 0)" in note for note in footnotes(document)
    )


@pytest.mark.parametrize(
    ("start", "accuracy", "told_at_all"),
    [(None, 0.6, True), (0.5, 0.6, False), (0.5, 0.8, True)],
)
def test_a_baseline_collapses_below_half_of_what_it_learns(
    start: float | None, accuracy: float, told_at_all: bool
) -> None:
    """From chance on, where the run says where it started."""
    started = {} if start is None else {"start_accuracy": start}
    given = [run("none", "fedavg", 0, figures(1.0, **started)), *twins(A, [0])]
    given += [*attacked(A, "fedavg", [1.0], accuracy), *attacked(A, "median", [0.0])]
    assert (rows(board(given))["median"]["der"] is not None) == told_at_all


def test_a_diverged_baseline_without_attack_costs_nobody_nothing() -> None:
    given = duel({"median": [0.5]})
    given[0] = run("none", "fedavg", 0, figures(0.1, diverged=1.0))
    median = rows(board(given))["median"]
    assert median["cost_under_attack"] is median["score"] is None
    assert median["unranked"] == "FedAvg has not run without an attack"


def warm(defense: str, end: float, **changes: Any) -> list[Run]:
    """A run without attack that begins at 90 %, and one under attack."""
    settings = {"warmup": 5, **changes}
    return [
        run("none", defense, 0, figures(end, start_accuracy=0.9), **settings),
        run(A, defense, 0, figures(end, 0.0 if defense != "fedavg" else 1.0), **settings),
    ]


def test_who_learns_nothing_from_a_warm_start_is_not_ranked() -> None:
    given = [*warm("fedavg", 1.0), *warm("median", 0.97), *warm("norm_clip(norm=0.01)", 0.9)]
    given.append(run(A, "fedavg", 0, figures(1.0, 0.0), dormant=True, warmup=5))
    document = board(given)
    frozen = rows(document)["norm_clip(norm=0.01)"]
    assert rows(document)["median"]["rank"] == 1
    assert frozen["learning_retained"]["mean"] == 0.0
    assert (frozen["rank"], frozen["unranked"]) == (
        None,
        "it retains 0 % of what FedAvg learns from a warm start",
    )
    assert any("retains 0 %" in note and "norm_clip" in note for note in footnotes(document))
    cold = [item._replace(spec={**item.spec, "warmup": 0}) for item in given]
    assert rows(board(cold))["norm_clip(norm=0.01)"]["rank"] is not None


def test_where_fedavg_learns_nothing_there_is_nothing_to_retain() -> None:
    given = [*warm("fedavg", 0.905), *warm("median", 0.9)]
    given.append(run(A, "fedavg", 0, figures(0.9, 0.0), dormant=True, warmup=5))
    median = rows(board(given))["median"]
    assert (median["learning_retained"], median["rank"]) == (None, 1)


def test_what_is_retained_is_not_said_of_clients_that_are_measured_on_their_own_tests() -> None:
    given = [
        *warm("fedavg", 1.0, evaluate_by="clients"),
        *warm("median", 0.9, evaluate_by="clients"),
        run(
            A,
            "fedavg",
            0,
            figures(0.9, 0.0),
            dormant=True,
            warmup=5,
            evaluate_by="clients",
        ),
    ]
    median = rows(board(given))["median"]
    assert (median["learning_retained"], median["rank"]) == (None, 1)


# who is ranked


def test_references_stand_in_their_order_without_a_rank() -> None:
    given = duel({"frozen": [0.25], "median": [0.5], "krum(f=1)": [0.0]})
    document = board(given)
    assert [(row["defense"], row["rank"]) for row in document["rows"]] == [
        ("krum(f=1)", 1),
        ("frozen", None),
        ("median", 2),
        ("fedavg", None),
    ]
    assert rows(document)["frozen"]["unranked"] == "to compare with"


def test_one_variant_of_a_defense_is_ranked() -> None:
    """That at its defaults, however good another one is; the first by text where none is there."""
    given = duel({
        "trimmed_mean(trim_fraction=0.4)": [0.0],
        "trimmed_mean(trim_fraction=0.2)": [0.5],
        "krum(f=2, m=3)": [0.5],
        "krum(f=1, m=3)": [0.75],
    })  # fmt: skip
    document = board(given)
    assert {row["defense"]: row["rank"] for row in document["rows"]} == {
        "trimmed_mean(trim_fraction=0.4)": None,
        "trimmed_mean(trim_fraction=0.2)": 1,
        "krum(f=2, m=3)": None,
        "krum(f=1, m=3)": 2,
        "fedavg": None,
    }
    assert rows(document)["krum(f=2, m=3)"]["variant"]
    assert not rows(document)["krum(f=1, m=3)"]["variant"]
    assert "no rank (another variant is ranked): 1 of krum; 1 of trimmed_mean" in footnotes(
        document
    )


def test_the_variant_that_a_search_has_chosen_is_ranked() -> None:
    given = duel(
        {"trimmed_mean(trim_fraction=0.2)": [0.0], "trimmed_mean(trim_fraction=0.4)": [0.5]}
    )
    tuned = [item.id for item in given if "0.4" in str(item.spec["defense"])]
    winner = {"side": "defense", "ids": tuned, "trials": 8, "seeds": 1, "objective": "der"}
    document = board(given, searched=[winner])
    assert rows(document)["trimmed_mean(trim_fraction=0.4)"]["rank"] == 1
    assert rows(document)["trimmed_mean(trim_fraction=0.2)"]["rank"] is None
    assert document["searched"] == [winner]
    assert recompute(json.loads(encode_document(document))) == document


def test_a_row_without_a_score_says_why() -> None:
    silent = board(
        [*clean([0]), run(A, "fedavg", 0, figures(1.0, 1.0)), run(A, "cat", 0, figures(1.0))]
    )
    assert rows(silent)["cat"]["unranked"] == (
        "what its attacks' inputs achieve without an attack is not known"
    )
    both = [*attacked(A, "fedavg", [1.0]), *attacked(A, "median", [0.5])]
    bare = board([*both, *twins(A, [0], defense="median")])
    assert rows(bare)["median"]["unranked"] == "FedAvg has not run without an attack"


def test_runs_on_validation_data_are_not_ranked() -> None:
    given = duel({"median": [0.5]})
    chosen = run(A, "median", 1, figures(1.0, 0.0))
    chosen = chosen._replace(spec={**chosen.spec, "evaluate_on": "validation"})
    assert board([*given, chosen]) == board(given)


# ranks


def test_rows_that_cannot_be_told_apart_share_a_rank() -> None:
    document = board(
        duel({
            "median": around(0.1),
            "krum(f=1)": around(0.5),
            "rfa": around(0.501, 3),
            "trimmed_mean(trim_fraction=0.2)": around(0.9, 1),
        })
    )  # fmt: skip
    assert ranked(document) == {
        "median": (1, 1, 1),
        "krum(f=1)": (2, 2, 3),
        "rfa": (2, 2, 3),
        "trimmed_mean(trim_fraction=0.2)": (4, 4, 4),
        "fedavg": (None, None, None),
    }
    assert "2 (2–3)" in terminal_text(document, 100)


def test_under_six_seeds_a_rank_is_a_position_with_those_of_the_single_seeds() -> None:
    document = board(duel({"median": [0.0, 0.5, 0.0], "krum(f=1)": [0.25, 0.25, 0.25]}))
    assert ranked(document)["median"] == (1, 1, 2)
    assert ranked(document)["krum(f=1)"] == (2, 1, 2)
    even = board(duel({"median": [0.25], "krum(f=1)": [0.25], "rfa": [0.5]}))
    assert [ranked(even)[name][0] for name in ("median", "krum(f=1)", "rfa")] == [1, 1, 3]


def test_holm_keeps_the_chance_of_any_false_difference() -> None:
    """Of eight equal rows, in at most about one board of twenty two are told apart."""
    draws = np.random.default_rng(1)
    separated = 0
    for _ in range(300):
        scores = {
            f"row {row}": estimate({seed: draws.normal(0, 1) for seed in SIX}) for row in range(8)
        }
        placed = ranks_of({name: score for name, score in scores.items() if score})
        separated += any(rank.low > 1 for rank in placed.values())
    assert separated <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)


def test_without_a_common_seed_every_rank_is_open() -> None:
    scores = {"one": Estimate(0.5, {0: 0.5}), "other": Estimate(0.25, {1: 0.25})}
    assert ranks_of(scores) == {"one": (1, 1, 2), "other": (2, 1, 2)}
    assert ranks_of({}) == {}


# bite


def test_an_attack_bites_where_the_whole_range_is_above_nothing() -> None:
    given = [*clean([0, 1]), *twins(A, [0, 1], 0.25), *attacked(A, "fedavg", [1.0, 0.25])]
    (cell,) = [item for item in board(given)["cells"] if item["attack"] == A]
    assert cell["bites"] is False
    assert cell["left_out"] == (
        "under FedAvg it has 62.5 %, its clean twin 25.0 %: a difference of 0.0 to 75.0 points"
    )
    sure = [*clean([0, 1]), *twins(A, [0, 1], 0.25), *attacked(A, "fedavg", [1.0, 0.5])]
    assert cell_of(board(sure), A, "fedavg")["bites"] is True


# what a search has chosen


def searched_board(*defenses: str) -> tuple[list[Run], list[dict[str, Any]]]:
    """Two defenses under a weak attack, and searched attacks on some of them at fresh seeds."""
    given = duel({"median": [0.25, 0.25], "krum(f=1)": [0.5, 0.5]})
    given += [*clean([7, 8]), *twins(A, [7, 8])]
    winners = []
    for strength, defense in enumerate(defenses, 2):
        attack = f"{A}+model_replacement(strength={strength})"
        success = 1.0 if defense == "median" else 0.625
        confirming = [run(attack, defense, seed, figures(1.0, success)) for seed in (7, 8)]
        given += [run(attack, "fedavg", seed, figures(1.0, 1.0)) for seed in (7, 8)]
        given += [*confirming, *clean([7, 8], defense)]
        winners.append({
            "side": "attack",
            "ids": [item.id for item in confirming],
            "trials": 12,
            "seeds": 2,
            "objective": "attack_success",
        })  # fmt: skip
    return given, winners


def test_ranks_follow_the_searched_worst_case_where_all_were_searched() -> None:
    given, winners = searched_board("median", "krum(f=1)")
    assert ranked(board(duel({"median": [0.25], "krum(f=1)": [0.5]})))["median"][0] == 1
    document = board(given, searched=winners)
    assert [row["defense"] for row in document["rows"]] == ["krum(f=1)", "fedavg", "median"]
    median = rows(document)["median"]
    assert (median["rank"], median["worst_excess"]["mean"], median["score"]["n"]) == (2, 1.0, 2)
    assert median["worst_case_success"]["mean"] == 1.0
    assert median["worst_case_attack"] == median["worst_attack"]
    assert median["worst_case_budget"] == 12
    assert [stage["name"] for stage in median["worst_case_stages"]] == [
        "badnets",
        "model_replacement",
    ]
    # they enter no mean, and nobody lacks the attack that a search has chosen against another
    assert (median["attacks"], median["missing"]) == ([A], 0)
    assert median["excess_success"]["mean"] == 0.25
    assert rows(document)["fedavg"]["attacks"] == [A]
    assert any(note.startswith("ranked by the worst case") for note in footnotes(document))
    assert "| searched |" in markdown(document)
    assert (
        "model_replacement(strength=2)" not in markdown(document).partition("attack by attack")[2]
    )
    assert differences(document, recompute(json.loads(encode_document(document)))) == []


def test_a_search_may_have_schedules_of_its_own() -> None:
    """They are settings without a board; what was run there without an attack counts for them."""
    given, winners = searched_board("median", "krum(f=1)")
    moved = [
        item._replace(spec={**item.spec, "attack_start": 3}) if item.spec["seed"] >= 7 else item
        for item in given
    ]
    document = board(moved, searched=winners)
    assert len(document["settings"]) == 2
    assert document["boards"] == []
    median = rows(document)["median"]
    assert median["score"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 2, "kind": "range"}
    assert median["cost_under_attack"]["n"] == median["excess_success"]["n"] == 2
    assert ranked(document)["median"] == (2, 2, 2)


def test_a_search_against_some_defenses_counts_in_no_rank() -> None:
    given, winners = searched_board("median")
    document = board(given, searched=winners)
    median = rows(document)["median"]
    assert (median["rank"], median["worst_excess"]["mean"]) == (1, 0.25)
    assert median["worst_case_success"]["mean"] == 1.0
    assert any("not searched were krum(f=1)" in note for note in footnotes(document))


def test_a_board_of_searched_attacks_alone_is_ranked() -> None:
    given, winners = searched_board("median", "krum(f=1)")
    fresh = [item for item in given if item.spec["seed"] >= 7]
    document = board(fresh, searched=winners)
    assert [(row["defense"], row["rank"]) for row in document["rows"]] == [
        ("krum(f=1)", 1),
        ("median", 2),
    ]
    assert rows(document)["median"]["seeds"] == [7, 8]
    assert rows(document)["median"]["attack_success_rate"]["mean"] == 1.0
    assert any("for want of other attacks" in note for note in footnotes(document))


# untargeted attacks, shares of attackers


def test_untargeted_attacks_have_a_board_of_their_own() -> None:
    flip = "sign_flip(strength=4.0)"
    given = duel({"median": [0.25, 0.25]})
    document = board(given)
    harmed = [run(flip, "fedavg", seed, figures(0.25)) for seed in (0, 1)]
    harmed += [run(flip, "median", seed, figures(0.75)) for seed in (0, 1)]
    both = board([*given, *harmed])
    assert both["rows"] == document["rows"]
    median = rows(both, "untargeted")["median"]
    assert (median["rank"], median["worst_attack"]) == (1, flip)
    assert median["accuracy_lost"]["mean"] == median["worst_accuracy_lost"]["mean"] == 0.25
    assert rows(both, "untargeted")["fedavg"]["rank"] is None
    assert any("board of their own" in note and "sign_flip" in note for note in footnotes(both))
    assert "## Untargeted attacks" in markdown(both)
    assert "untargeted" in terminal_text(both, 100)
    assert "75.0" in terminal_text(both, 100).partition("untargeted")[2]


def shares(successes: dict[float, float]) -> list[Run]:
    """Share of attackers → attack success of a defense."""
    given = []
    for share, success in successes.items():
        base = BASE.replace(malicious=share)
        given += [run("none", "fedavg", 0, figures(1.0), base)]
        given += [run(A, "fedavg", 0, figures(1.0, 0.0), base, dormant=True)]
        given += [run(A, "fedavg", 0, figures(1.0, 1.0), base)]
        given += [run(A, "median", 0, figures(1.0, success), base)]
    return given


def test_the_share_of_attackers_that_breaks_a_defense() -> None:
    breaks = rows(board(shares({0.1: 0.25, 0.2: 0.75, 0.4: 1.0})))["median"]["break_even_share"]
    assert breaks == pytest.approx(0.15)
    assert rows(board(shares({0.1: 0.25, 0.2: 0.3})))["median"]["break_even_share"] is None
    assert rows(board(shares({0.1: 0.25})))["median"]["break_even_share"] is None
    other_rounds = [item._replace(spec={**item.spec, "rounds": 9}) for item in shares({0.2: 0.75})]
    assert rows(board([*shares({0.1: 0.25}), *other_rounds]))["median"]["break_even_share"] is None


# by round, samples


def test_a_backdoor_that_comes_and_goes_is_seen() -> None:
    rates = [(0, 0.0), (1, 1.0), (2, 0.5), (3, 0.1)]
    accuracies = [(at, value) for at, value in enumerate((0.5, 0.75, 1.0, 0.75))]
    attacked_run = run(A, "fedavg", 0, figures(1.0, 0.1, success_samples=25.0), attack_stop=3)
    twin = run(A, "fedavg", 0, figures(1.0, 0.0), attack_stop=3, dormant=True)
    given = [
        attacked_run._replace(
            curves={"round/attack_success_rate": rates, "round/clean_accuracy": accuracies}
        ),
        twin._replace(curves={"round/attack_success_rate": [(at, 0.0) for at in range(4)]}),
    ]
    document = board(given)
    cell = cell_of(document, A, "fedavg")
    means = {
        "peak_success": 1.0,
        "last_success": 0.1,
        "success_area": 0.4,
        "success_after_stop": 0.1,
        "attacked_excess": 0.5,
        "attacked_excess_p95": 0.95,
        "peak_accuracy": 1.0,
        "last_accuracy": 0.75,
        "accuracy_area": 0.75,
    }
    assert {name: cell[name]["mean"] for name in means} == pytest.approx(means)
    assert cell["success_samples"] == 25
    assert cell["success_binomial"] == wilson(0.1, 25)
    (entry,) = (item for item in document["runs"] if not item["spec"]["dormant"])
    assert entry["accuracy_by_round"] == [[at, value] for at, value in accuracies]
    assert recompute(json.loads(encode_document(document))) == document


# the document


def test_two_halves_together_are_the_whole() -> None:
    """In whatever order and from whichever store the runs come."""
    whole = runs(3)
    halves = [*whole[1::2], *whole[0::2]]
    assert encode_document(board(halves)) == encode_document(board(whole))
    shuffled = list(whole)
    assert encode_document(board(shuffled[::-1])) == encode_document(board(whole))
