"""The life of a backdoor, and what makes a run's success doubtful."""

from __future__ import annotations

from collections.abc import Sequence

from backstop.platform.contract import Record
from backstop.platform.rounds.finals import (
    YOUNGER_FIGURES,
    comparable,
    doubts,
    final,
    lifetime,
    unmoved,
)

NEVER = dict.fromkeys(range(60), 0.0)


def rates(listed: Sequence[float | None], every: int = 1) -> list[tuple[int, float]]:
    """Evaluations of every so many rounds."""
    rounds = [((place + 1) * every - 1, rate) for place, rate in enumerate(listed)]
    return [(at, rate) for at, rate in rounds if rate is not None]


def test_time_to_backdoor_counts_from_the_attacks_first_round() -> None:
    assert lifetime(rates([0.9, 0.1, 0.4, 0.5]), NEVER, 1, None) == {"time_to_backdoor": 3.0}
    assert lifetime(rates([0.9, 0.4, 0.4]), NEVER, 1, None) == {}  # not this attack's doing
    assert lifetime(rates([0.1, 0.6], every=5), NEVER, 0, None) == {"time_to_backdoor": 10.0}


def test_durability_counts_the_rounds_that_keep_half_of_what_there_was() -> None:
    lasted = lifetime(rates([0.2, 0.6, 0.4, 0.3, 0.29, 0.9]), NEVER, 0, 2)
    assert lasted == {"time_to_backdoor": 2.0, "durability": 2.0, "still_active": 0.0}
    watched = lifetime(rates([0.6, 0.6, 0.4, 0.3]), NEVER, 0, 2)
    assert watched == {"time_to_backdoor": 1.0, "durability": 2.0, "still_active": 1.0}
    assert lifetime(rates([0.0, 0.3]), NEVER, 0, 1) == {}  # nothing to last
    assert lifetime(rates([0.4, 0.4, 0.3]), NEVER, 0, 2) == {}  # it was never there
    # nothing after it was watched
    assert "durability" not in lifetime(rates([0.6, 0.6]), NEVER, 0, 2)
    gap = lifetime(rates([0.6, None, None, 0.1]), NEVER, 0, 1)
    assert gap == {"time_to_backdoor": 1.0, "durability": 2.0, "still_active": 0.0}


def test_an_attack_of_every_kth_round_ends_with_its_last_and_not_with_the_schedule() -> None:
    """Rounds 0 and 8 would be attacked, and round 8 is no longer."""
    success = rates([1.0, 0.94, 0.79, 0.67, 0.47, 0.42, 0.24, 0.31, 0.32, 0.25])
    spans = lifetime(success, NEVER, 0, 8, 8)
    assert spans == {"time_to_backdoor": 1.0, "durability": 3.0, "still_active": 0.0}


def test_natural_success_is_no_backdoor() -> None:
    """Inputs that get the wanted label from a clean model, too, have no backdoor that lasts."""
    twin = dict.fromkeys(range(60), 0.45)
    fades = lifetime(rates([0.85] * 5 + [0.45] * 55), twin, 0, 5)
    assert fades == {"time_to_backdoor": 1.0, "durability": 0.0, "still_active": 0.0}
    assert lifetime(rates([0.52] * 5), dict.fromkeys(range(5), 0.52), 0, None) == {}
    assert lifetime(rates([1.0] * 5), dict.fromkeys(range(5), 1.0), 0, 2) == {}
    assert lifetime(rates([0.74]), {0: 0.5}, 0, None) == {}
    assert lifetime(rates([0.75]), {0: 0.5}, 0, None) == {"time_to_backdoor": 1.0}
    assert lifetime(rates([0.9]), {}, 0, None) == {}  # without a twin nothing is known


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
