"""Rows against each other: differences, ranks with ties, how many seeds are missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.platform.results.figures.comparisons import (
    Standing,
    compare_rows,
    holm,
    paired_differences,
    places,
    seeds_needed,
    standings,
)
from backstop.platform.results.figures.intervals import p_value
from backstop.platform.seeds import stream

EASE = [0.10, 0.62, 0.35, 0.81, 0.27, 0.50, 0.93, 0.44]  # what each of eight seeds allows anybody


def shifted(by: float, jitter: float = 0.01) -> list[float]:
    """A row that follows the seeds' ease, so much better."""
    return [
        value + by + jitter * (-1) ** index * (index + 1) / 8 for index, value in enumerate(EASE)
    ]


# -- pairs


def test_pairs_are_compared_within_their_seeds() -> None:
    """A difference of 3 points beside 80 points from seed to seed is seen."""
    comparison = compare_rows(shifted(0.03), EASE)
    assert comparison is not None
    assert comparison.difference["mean"] == pytest.approx(0.03, abs=0.002)
    assert comparison.difference["low"] > 0
    assert comparison.p_value is not None
    assert comparison.p_value < 0.001


def test_few_seeds_have_a_range_and_no_p_value() -> None:
    comparison = compare_rows([0.5, 0.7], [0.25, 0.75])
    assert comparison is not None
    assert comparison.difference["kind"] == "range"
    assert (comparison.difference["low"], comparison.difference["high"]) == (-0.05, 0.25)
    assert comparison.p_value is None
    assert compare_rows([], []) is None


def test_rows_must_have_the_same_seeds() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare_rows([0.1, 0.2], [0.1])


def test_the_rounding_of_two_sums_is_no_difference() -> None:
    row = [0.1 + 0.2] * 8
    assert paired_differences(row, [0.3] * 8) == [0.0] * 8
    assert [standing.rank for standing in standings([row, [0.3] * 8])] == [1, 1]


# -- Holm


def test_holm_is_stepwise_and_never_falls() -> None:
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_none_and_bonferroni(p_values: list[float]) -> None:
    for own, corrected in zip(p_values, holm(p_values), strict=True):
        assert own <= corrected <= min(1.0, own * len(p_values)) or corrected >= own
        assert corrected <= max((min(1.0, p * len(p_values)) for p in p_values), default=0)


def test_holm_keeps_its_level() -> None:
    """Ten rows without any difference: in at most about 5 % of boards one pair is called apart."""
    random = np.random.default_rng(stream(0, "holm"))
    boards = 400
    wrong = 0
    for _ in range(boards):
        rows = random.normal(size=(6, 8)).tolist()
        wrong += any(standing.rank > 1 for standing in standings(rows))
    assert wrong / boards < 0.08


# -- ranks


def test_rows_that_cannot_be_told_apart_share_a_rank() -> None:
    rows = [shifted(0.2), shifted(0.201, jitter=0.02), shifted(0.0), shifted(-0.3)]
    assert standings(rows) == [
        Standing(1, 1, 2),
        Standing(1, 1, 2),
        Standing(3, 3, 3),
        Standing(4, 4, 4),
    ]


def test_a_row_between_two_shares_its_rank_with_both() -> None:
    """The noisy second cannot be told from the first nor from the third, which are told apart."""
    noisy = [value + 0.05 + (0.3 if index % 2 else -0.3) for index, value in enumerate(EASE)]
    rows = [shifted(0.1), noisy, shifted(0.0)]
    assert standings(rows) == [Standing(1, 1, 2), Standing(1, 1, 3), Standing(2, 2, 3)]


def test_under_six_seeds_ranks_are_places_with_those_of_single_seeds() -> None:
    rows = [[0.9, 0.1, 0.6], [0.5, 0.5, 0.5], [0.2, 0.6, 0.4]]
    assert standings(rows) == [Standing(1, 1, 3), Standing(2, 2, 2), Standing(3, 1, 3)]


def test_the_place_of_the_mean_is_among_the_places() -> None:
    """Second in every seed, and first in the mean."""
    rows = [[0.5, 0.5, 0.5], [0.6, 0.0, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 0.6]]
    assert standings(rows)[0] == Standing(1, 1, 2)


def test_equal_places_are_shared() -> None:
    assert places([0.5, 0.7, 0.5]) == [Standing(2, 2, 3), Standing(1, 1, 1), Standing(2, 2, 3)]
    assert standings([[0.5], [0.5]]) == [Standing(1, 1, 2), Standing(1, 1, 2)]


def test_nothing_to_rank() -> None:
    assert standings([]) == []
    assert standings([[0.1] * 7]) == [Standing(1, 1, 1)]


# -- seeds


def test_rows_that_are_told_apart_need_no_more_seeds() -> None:
    assert seeds_needed(paired_differences(shifted(0.1), EASE)) == 0


def test_what_says_nothing_gives_no_number() -> None:
    assert seeds_needed([]) is None
    assert seeds_needed([0.1]) is None
    assert seeds_needed([0.0] * 8) is None
    assert seeds_needed([0.1, -0.1]) is None
    assert seeds_needed([0.1, -0.1 + 1e-6] * 4) is None  # a million seeds


def test_differences_that_agree_need_the_least_that_is_tested() -> None:
    assert seeds_needed([0.1, 0.1, 0.1]) == 3


def test_more_pairs_need_more_seeds() -> None:
    differences = [0.03, -0.02, 0.05, 0.01]
    alone = seeds_needed(differences)
    together = seeds_needed(differences, pairs=45)
    assert alone is not None
    assert together is not None
    assert together > alone


@pytest.mark.parametrize("effect", [0.3, 0.6, 1.2])
def test_the_planned_seeds_have_the_power(effect: float) -> None:
    """The number for differences of this mean and deviation, tried on new ones."""
    seen = [effect + step for step in (-1.0, 1.0, -1.0, 1.0)]
    seen = [effect + (value - effect) * np.sqrt(3 / 4) for value in seen]  # deviation 1
    more = seeds_needed(seen)
    assert more is not None
    seeds = len(seen) + more
    random = np.random.default_rng(stream(0, "power", seeds))
    trials = random.normal(effect, 1, (2_000, seeds)).tolist()
    told_apart = sum(p_value(differences) <= 0.05 for differences in trials)
    assert told_apart / 2_000 == pytest.approx(0.8, abs=0.035)
