"""The final figures of a run, and what makes its success doubtful."""

from __future__ import annotations

from backstop.platform.contract import Record
from backstop.platform.rounds.finals import (
    YOUNGER_FIGURES,
    comparable,
    doubts,
    final,
    unmoved,
)


def test_turns_are_those_of_the_last_record() -> None:
    records = [Record("", at, {"attack/turns": float(2 * at)}) for at in range(4)]
    assert final(records)["final/attack_turns"] == 6.0
    assert "final/attack_turns" not in final([Record("", 0, {})])


def test_what_the_last_record_tells_of_the_run_is_final_as_it_is() -> None:
    records = [Record("", at, {"round/clean_accuracy": 0.5}) for at in range(20)]
    told = {**records[-1].metrics, "run/start_accuracy": 0.25, "run/test_samples": 40.0}
    figures = final([*records[:-1], Record("", 19, told)])
    assert (figures["final/start_accuracy"], figures["final/test_samples"]) == (0.25, 40.0)
    assert "final/start_accuracy" not in final(records)


def test_a_stored_run_that_is_older_than_a_figure_does_not_lack_it() -> None:
    older = {"final/clean_accuracy": 0.5}
    newer = {**older, **dict.fromkeys(YOUNGER_FIGURES, 1.0)}
    assert comparable(older, newer) == ["final/clean_accuracy"]
    assert set(comparable(newer, newer)) == set(comparable(newer, older)) == set(newer)
    assert comparable({}, older) == ["final/clean_accuracy"]
    of_one = {"final/absent_adversaries/2": 1.0}
    assert comparable(older, older | of_one) == comparable(older, older)
    assert comparable(older | of_one, older) == [*of_one, "final/clean_accuracy"]


def kept(**shares: float) -> Record:
    return Record(
        "",
        0,
        {
            "round/clean_accuracy": 0.1,
            **{f"defense/kept_weight_{name}": share for name, share in shares.items()},
        },
    )


def test_a_defense_that_leaves_nobody_a_weight_is_said_so() -> None:
    nobody, benign = kept(benign=0.0, malicious=0.0), kept(benign=0.0)
    assert "weight 0 in all evaluated rounds (3)" in unmoved([nobody, benign, nobody])
    assert not unmoved([nobody, kept(benign=0.0, malicious=0.2)])
    assert not unmoved([nobody, kept()])  # where rows are merged, their weights are not known
    assert not unmoved([])


def test_a_run_that_says_nothing_is_said_so() -> None:
    figures = {
        "final/attack_turns": 4.0,
        "final/attack_success_rate": 0.077,
        "final/untriggered_target_rate": 0.078,
        "final/trigger_effect": -0.001,
    }
    (line,) = doubts(figures)
    assert "7.7 %" in line
    assert "7.8 %" in line
    assert doubts(figures | {"final/trigger_effect": 0.3}) == []
    assert doubts({}) == []
    (never,) = doubts(figures | {"final/attack_turns": 0.0})
    assert "never happened" in never
