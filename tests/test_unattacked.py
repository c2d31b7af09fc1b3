"""A dormant run is the run without an attack, so a leaderboard needs one of the two."""

from __future__ import annotations

from backstop.platform.results.leaderboard import ranking
from backstop.platform.results.leaderboard.unattacked import without_dormant
from backstop.platform.results.tracking.runs import Run
from tests.boards import run

A = "badnets(size=3)"
DEFENSES = {"fedavg": 1.0, "median": 0.75}
OF_INPUTS = {"attack_success_rate": 0.125, "unrepaired_robust_accuracy": 0.5}


def attacked() -> list[Run]:
    figures = {"clean_accuracy": 1.0, "attack_success_rate": 1.0}
    return [run(A, defense, 0, figures) for defense in DEFENSES]


def dormant(attack: str = A) -> list[Run]:
    return [
        run(attack, defense, 0, {"clean_accuracy": accuracy, **OF_INPUTS}, dormant=True)
        for defense, accuracy in DEFENSES.items()
    ]


def plain() -> list[Run]:
    return [run("none", defense, 0, {"clean_accuracy": 0.5}) for defense in DEFENSES]


def test_it_stands_for_the_run_that_is_not_there() -> None:
    others = dormant("sig(delta=0.3)")  # another trigger, the same model
    document = ranking.build_document([*attacked(), *dormant(), *others], "x")
    quiet = [cell for cell in document["cells"] if cell["attack"] == "none"]
    assert [(cell["defense"], cell["clean_accuracy"]["mean"]) for cell in quiet] == [
        ("fedavg", 1.0),
        ("median", 0.75),
    ]
    rows = {row["defense"]: row["no_attack_accuracy"]["mean"] for row in document["rows"]}
    assert rows == DEFENSES
    assert all(cell["attack_success_rate"] is None for cell in quiet)
    assert len(document["runs"]) == 6


def test_it_gives_way_to_the_run_itself() -> None:
    document = ranking.build_document([*attacked(), *dormant(), *plain()], "x")
    rows = {row["defense"]: row["no_attack_accuracy"]["mean"] for row in document["rows"]}
    assert rows == dict.fromkeys(DEFENSES, 0.5)


def test_what_is_said_of_the_trigger_is_left_out() -> None:
    first, _ = without_dormant(dormant())
    assert first.metrics == {"final/clean_accuracy": 1.0, "final/diverged": 0.0}
    assert (first.spec["attack"], first.spec["dormant"]) == ([], False)
