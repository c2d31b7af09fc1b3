"""How long a backdoor takes to come and how long it lasts, from hand-made trajectories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from backstop.platform.results.leaderboard import ranking
from backstop.platform.results.leaderboard.document import encode_document
from backstop.platform.results.leaderboard.verification import recompute
from backstop.platform.results.report.details import cell_columns
from backstop.platform.results.report.page import page
from backstop.platform.results.tables import frames
from backstop.platform.results.tables.markdown import markdown
from backstop.platform.results.tracking.runs import Run
from backstop.platform.rounds.durability import Schedule, lifespan, lifetime
from tests.boards import run

NEVER = dict.fromkeys(range(60), 0.0)
ENDLESS = Schedule(0, None)


def rates(listed: Sequence[float | None], every: int = 1) -> list[tuple[int, float]]:
    """Evaluations of every so many rounds."""
    rounds = [((place + 1) * every - 1, rate) for place, rate in enumerate(listed)]
    return [(at, rate) for at, rate in rounds if rate is not None]


def test_time_to_backdoor_counts_from_the_attacks_first_round() -> None:
    later = Schedule(1, None)
    assert lifetime(rates([0.9, 0.1, 0.4, 0.5]), NEVER, later) == {"time_to_backdoor": 3.0}
    assert lifetime(rates([0.9, 0.4, 0.4]), NEVER, later) == {}  # not this attack's doing
    assert lifetime(rates([0.1, 0.6], every=5), NEVER, ENDLESS) == {"time_to_backdoor": 10.0}


def test_durability_counts_the_rounds_that_keep_half_of_what_there_was() -> None:
    lasted = lifetime(rates([0.2, 0.6, 0.4, 0.3, 0.29, 0.9]), NEVER, Schedule(0, 2))
    assert lasted == {"time_to_backdoor": 2.0, "durability": 2.0, "still_active": 0.0}
    watched = lifetime(rates([0.6, 0.6, 0.4, 0.3]), NEVER, Schedule(0, 2))
    assert watched == {"time_to_backdoor": 1.0, "durability": 2.0, "still_active": 1.0}
    assert lifetime(rates([0.0, 0.3]), NEVER, Schedule(0, 1)) == {}  # nothing to last
    assert lifetime(rates([0.4, 0.4, 0.3]), NEVER, Schedule(0, 2)) == {}  # it was never there
    # nothing after it was watched
    assert "durability" not in lifetime(rates([0.6, 0.6]), NEVER, Schedule(0, 2))
    gap = lifetime(rates([0.6, None, None, 0.1]), NEVER, Schedule(0, 1))
    assert gap == {"time_to_backdoor": 1.0, "durability": 2.0, "still_active": 0.0}


def test_an_attack_of_every_kth_round_ends_with_its_last_and_not_with_the_schedule() -> None:
    """Rounds 0 and 8 would be attacked, and round 8 is no longer."""
    success = rates([1.0, 0.94, 0.79, 0.67, 0.47, 0.42, 0.24, 0.31, 0.32, 0.25])
    spans = lifetime(success, NEVER, Schedule(0, 8, 8))
    assert spans == {"time_to_backdoor": 1.0, "durability": 3.0, "still_active": 0.0}


def test_natural_success_is_no_backdoor() -> None:
    """Inputs that get the wanted label from a clean model, too, have no backdoor that lasts."""
    twin = dict.fromkeys(range(60), 0.45)
    fades = lifetime(rates([0.85] * 5 + [0.45] * 55), twin, Schedule(0, 5))
    assert fades == {"time_to_backdoor": 1.0, "durability": 0.0, "still_active": 0.0}
    assert lifetime(rates([0.52] * 5), dict.fromkeys(range(5), 0.52), ENDLESS) == {}
    assert lifetime(rates([1.0] * 5), dict.fromkeys(range(5), 1.0), Schedule(0, 2)) == {}
    assert lifetime(rates([0.74]), {0: 0.5}, ENDLESS) == {}
    assert lifetime(rates([0.75]), {0: 0.5}, ENDLESS) == {"time_to_backdoor": 1.0}
    assert lifetime(rates([0.9]), {}, ENDLESS) == {}  # without a twin nothing is known


@pytest.mark.parametrize(
    ("listed", "lasted", "still_over_half"),
    [
        ([0.2, 0.8, 0.7, 0.5, 0.49, 0.9], 2.0, 0.0),  # the first fall counts
        ([0.2, 0.8, 0.1, 0.9], 0.0, 0.0),
        ([0.8, 0.4, 0.3, 0.3], 0.0, 0.0),  # it fell before the attack had ended
        ([0.8, 0.8, 0.7, 0.6, 0.5], 3.0, 1.0),  # it never fell: what was watched
        ([0.1, 0.1, 0.6, 0.2], 1.0, 0.0),  # planted by the attack's last round
    ],
)
def test_a_lifespan_is_the_rounds_after_the_attack_before_success_is_below_one_half(
    listed: list[float], lasted: float, still_over_half: float
) -> None:
    assert lifespan(rates(listed), Schedule(0, 2)) == {
        "lifespan": lasted,
        "still_over_half": still_over_half,
    }


def test_no_lifespan_is_told_of_what_never_was_or_was_not_watched() -> None:
    once = Schedule(0, 2)
    assert lifespan(rates([0.2, 0.49, 0.4, 0.3]), once) == {}  # never half-way
    assert lifespan(rates([0.2, 0.49, 0.4, 0.9]), once) == {}  # nor by what the attack did
    assert lifespan(rates([0.9, 0.9]), once) == {}  # nothing after it was watched
    assert lifespan(rates([0.9, 0.9, 0.9]), ENDLESS) == {}  # it does not stop
    assert lifespan([], once) == {}


def test_a_lifespan_asks_for_no_twin_and_is_no_share_of_what_there_was() -> None:
    """Success falls from 90 to 60 %, the twin's is 40: half of the excess is gone at once."""
    success, twin = rates([0.9, 0.9, 0.6, 0.6, 0.45]), dict.fromkeys(range(5), 0.4)
    assert lifetime(success, twin, Schedule(0, 2))["durability"] == 0.0
    assert lifespan(success, Schedule(0, 2)) == {"lifespan": 2.0, "still_over_half": 0.0}


@pytest.mark.parametrize("every", [1, 3, 5])
def test_spans_are_too_long_by_less_than_the_rounds_between_two_evaluations(every: int) -> None:
    """A backdoor that is there in rounds 10 to 29 and gone from round 30 on."""
    schedule = Schedule(10, 20)
    by_round = {at: 0.9 if 10 <= at < 30 else 0.1 for at in range(60)}
    seen = [(at, by_round[at]) for at in range(every - 1, 60, every)]
    spans = lifetime(seen, NEVER, schedule) | lifespan(seen, schedule)
    assert 1 <= spans["time_to_backdoor"] <= 1 + every - 1
    assert 10 <= spans["durability"] <= 10 + every - 1
    assert spans["lifespan"] == spans["durability"]


def test_what_comes_after_an_attack_of_every_kth_round_begins_after_its_last() -> None:
    """Rounds 2 and 6 are attacked, and round 10 is no longer."""
    schedule, evaluated = Schedule(2, 9, 4), [(at, 0.5) for at in range(9)]
    assert schedule.last == 6
    assert [at for at, _ in schedule.after(evaluated)] == [7, 8]
    assert [at for at, _ in schedule.during(evaluated)] == [2, 3, 4, 5, 6, 7, 8]
    assert ENDLESS.last is None
    assert not ENDLESS.after(evaluated)
    assert ENDLESS.during(evaluated) == evaluated


# on a board

A = "badnets"
# one fades, one is still there, one never was
THREE_SEEDS = ([0.9, 0.9, 0.6, 0.52, 0.2], [0.9, 0.9, 0.9, 0.8, 0.6], [0.3, 0.4, 0.2, 0.2, 0.1])
AFTER = ("rounds that it lasted", "rounds over one half", "excess after the attack")


def board(attacked: Sequence[Sequence[float]], natural: float, stop: int | None) -> dict[str, Any]:
    """Of one attack on FedAvg, a curve of attack success for each seed."""
    given: list[Run] = []
    for seed, curve in enumerate(attacked):
        twin = [natural] * len(curve)
        for dormant, values in ((False, curve), (True, twin)):
            finals = {"clean_accuracy": 1.0, "attack_success_rate": values[-1]}
            made = run(A, "fedavg", seed, finals, attack_stop=stop, dormant=dormant)
            given.append(made._replace(curves={"round/attack_success_rate": rates(values)}))
    return dict(ranking.build_document(given, "x"))


def attacked_cell(document: dict[str, Any]) -> dict[str, Any]:
    (cell,) = (cell for cell in document["cells"] if cell["attack"] != "none")
    return dict(cell)


def test_a_cell_holds_the_lifespans_of_its_seeds_and_the_excess_that_was_left() -> None:
    """E is (success - 0.2) / 0.8."""
    document = board(THREE_SEEDS, natural=0.2, stop=2)
    cell = attacked_cell(document)
    assert cell["lifespan"] == {
        "mean": 2.5,
        "low": 2.0,
        "high": 3.0,
        "n": 2,
        "kind": "range",
    }
    assert cell["still_over_half"] == 1
    left = [(0.5 + 0.4) / 3, (0.875 + 0.75 + 0.5) / 3, 0.0]
    assert cell["excess_after_stop"] == pytest.approx(
        {
            "mean": sum(left) / 3,
            "low": 0.0,
            "high": left[1],
            "n": 3,
            "kind": "range",
        }
    )
    assert cell["success_after_stop"]["mean"] == pytest.approx((1.32 + 2.3 + 0.5) / 9)
    assert recompute(json.loads(encode_document(document))) == document


def test_an_attack_that_does_not_stop_has_nothing_after_it() -> None:
    document = board([[0.9, 0.9], [0.9, 0.9]], natural=0.0, stop=None)
    cell = attacked_cell(document)
    after = ("durability", "lifespan", "still_over_half", "excess_after_stop", "success_after_stop")
    assert {name: cell[name] for name in after} == dict.fromkeys(after)
    assert not {column.heading for column in cell_columns(document)} & {*AFTER}
    assert "How long backdoors last" not in markdown(document)


def test_tables_pages_and_frames_tell_lifespans() -> None:
    document = board(THREE_SEEDS, natural=0.2, stop=2)
    after = ("2.0+ (2 of 3 seeds)", "2.5+ (2 of 3 seeds)", "33.6 (0.0 to 70.8)")
    assert f"| {' | '.join(after)} |" in markdown(document)
    texts = {column.heading: column.text for column in cell_columns(document)}
    assert tuple(texts[heading](attacked_cell(document)) for heading in AFTER) == after
    html = page(document, [])
    assert all(f">{heading}</th>" in html for heading in AFTER)
    (row,) = frames.cells_frame(document).query("attack != 'none'").to_dict("records")
    assert (row["lifespan_mean"], row["lifespan_high"], row["still_over_half"]) == (2.5, 3.0, 1)
    assert row["excess_after_stop_mean"] == pytest.approx(0.336, abs=5e-4)
