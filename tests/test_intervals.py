"""Figures over seeds: what they are called, their bytes, and how often they hold the true mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.platform.results.figures import student
from backstop.platform.results.figures.intervals import (
    SHARES,
    figure,
    p_value,
    sample_of,
    spread_of_seeds,
)
from benchmarks.interval_coverage import (
    HARD_LAWS,
    LAWS,
    SEEDS,
    Method,
    bias_corrected,
    coverage,
    halls,
    students,
)

PAGE_FILE = Path(__file__).resolve().parents[1] / "docs/statistics.md"
PAGE = PAGE_FILE.read_text(encoding="utf-8")
TABLE = {  # Student's two-sided 95 % quantiles, as printed in any table
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    8: 2.306,
    9: 2.262,
    18: 2.101,
    19: 2.093,
    30: 2.042,
    120: 1.980,
}


# Where no method holds 95 % at every n: coverage at 6, 10 and 20 seeds
MEASURED = {
    "Beta(0.5, 4.5), most near 0": (0.895, 0.91, 0.93),
    "lognormal, σ = 0.8": (0.895, 0.90, 0.915),
    "one seed in two near 1": (0.97, 0.98, 0.96),
    "three in ten near 1": (0.88, 0.965, 0.955),
    "one in five near 1": (0.735, 0.89, 0.97),
}
ROW = re.compile(r"^\| (?P<law>[^|]+) \| (?P<ours>[\d. ]+) \|", re.MULTILINE)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("name", LAWS)
def test_coverage_is_within_two_points_of_95(name: str, seeds: int) -> None:
    assert 0.93 <= coverage(LAWS[name], seeds, 5_000) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("name", LAWS)
def test_coverage_in_many_trials(name: str, seeds: int) -> None:
    assert 0.93 <= coverage(LAWS[name], seeds, 100_000) <= 0.97


@pytest.mark.parametrize("name", HARD_LAWS)
def test_coverage_where_no_method_holds(name: str) -> None:
    for seeds, share in zip(SEEDS, MEASURED[name], strict=True):
        assert coverage(HARD_LAWS[name], seeds, 5_000) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("method", [students, bias_corrected])
def test_other_methods_would_not_hold(method: Method) -> None:
    assert coverage(LAWS["Beta(1, 4)"], 6, 5_000, method) < 0.925


def test_the_whole_correction_holds_too_often_on_u_shaped_values() -> None:
    assert coverage(LAWS["Beta(0.5, 0.5), U-shaped"], 10, 5_000, halls) > 0.975


def test_the_page_says_what_is_measured() -> None:
    """The tables of docs/statistics.md, which ``python benchmarks/interval_coverage.py`` prints."""
    stated = {row["law"]: row["ours"].split() for row in ROW.finditer(PAGE)}
    assert stated.keys() == {**LAWS, **HARD_LAWS}.keys()
    for name, law in {**LAWS, **HARD_LAWS}.items():
        for seeds, percent in zip(SEEDS, stated[name], strict=True):
            assert 100 * coverage(law, seeds, 5_000) == pytest.approx(float(percent), abs=1.2)


# -- Student's t


def test_quantiles_are_those_of_the_tables() -> None:
    for freedom, limit in TABLE.items():
        assert student.central_limit(0.95, freedom) == pytest.approx(limit, abs=6e-4)


def test_quantiles_and_probabilities_agree_with_scipy() -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 4, 5, 8, 17, 98, 999):
        for probability in (0.6, 0.95, 0.9995):
            own = student.central_limit(probability, freedom)
            theirs = stats.t.ppf((1 + probability) / 2, freedom)
            assert own == pytest.approx(theirs, rel=1e-10, abs=1e-10)
        for limit in (0.0, 0.3, 2.0, 40.0):
            theirs = 1 - 2 * stats.t.sf(limit, freedom)
            assert student.central_probability(limit, freedom) == pytest.approx(theirs, abs=1e-13)


# -- figures


def test_no_values_no_figure() -> None:
    assert figure([]) is None


def test_under_six_seeds_it_is_the_range() -> None:
    assert figure([0.9, 0.1, 0.5]) == {
        "mean": 0.5,
        "low": 0.1,
        "high": 0.9,
        "n": 3,
        "kind": "range",
    }
    assert figure([0.1, 0.2, 0.3, 0.4, 0.5])["kind"] == "range"  # type: ignore[index]


def test_from_six_seeds_on_it_is_the_interval() -> None:
    """Six values without skewness: Student's with four degrees of freedom."""
    measured = figure([0.4, 0.5, 0.6, 0.4, 0.5, 0.6])
    assert measured is not None
    assert measured["kind"] == "95%"
    assert measured["n"] == 6
    deviation = np.sqrt(0.04 / 5)
    assert measured["high"] == pytest.approx(0.5 + 2.776445 * deviation / np.sqrt(6), abs=1e-6)
    assert measured["low"] + measured["high"] == pytest.approx(1.0)


def test_a_long_tail_makes_its_own_side_longer() -> None:
    low, high = spread_of_seeds([0.0, 0.01, 0.02, 0.03, 0.05, 0.4])
    mean = 0.51 / 6
    assert high - mean > 1.2 * (mean - low)


def test_a_share_stays_in_its_bounds() -> None:
    values = [0.0, 0.0, 0.0, 0.0, 0.1, 0.9]
    assert spread_of_seeds(values)[0] < 0
    measured = figure(values, SHARES)
    assert measured is not None
    assert measured["low"] == 0
    assert measured["high"] <= 1


def test_values_that_agree_have_exactly_their_mean_and_no_width() -> None:
    measured = figure([0.1] * 7)
    assert measured == {
        "mean": 0.1,
        "low": 0.1,
        "high": 0.1,
        "n": 7,
        "kind": "95%",
    }


def test_the_bytes_are_fixed() -> None:
    values = [0.03125, 0.25, 0.2890625, 0.3125, 0.421875, 0.90625, 0.71875]
    low, high = spread_of_seeds(values)
    assert [low.hex(), high.hex()] == ["0x1.2e0b56e77421ap-3", "0x1.76f07ee08204ep-1"]


# numbers as results have them: shares in ten-thousandths
SOME_SHARES = st.integers(0, 10_000).map(lambda count: count / 10_000)


@given(st.lists(SOME_SHARES, min_size=6, max_size=40))
def test_a_figure_holds_its_mean_and_does_not_depend_on_the_order(values: list[float]) -> None:
    measured = figure(values)
    assert measured is not None
    assert measured["low"] <= measured["mean"] <= measured["high"]
    assert figure(values[::-1]) == measured


@given(st.lists(SOME_SHARES, min_size=6, max_size=40), st.floats(-3, 3))
def test_the_inverse_is_one(values: list[float], transformed: float) -> None:
    if min(values) == max(values):
        return
    sample = sample_of(values)
    bound = student.central_limit(0.95, sample.seeds - 2) / np.sqrt(sample.seeds)
    transformed = min(max(transformed, -bound), bound)
    again = sample.transformed(sample.distance(transformed))
    assert again == pytest.approx(transformed, abs=1e-9)


@given(st.lists(SOME_SHARES, min_size=6, max_size=40))
def test_the_p_value_is_5_percent_at_the_ends(values: list[float]) -> None:
    low, high = spread_of_seeds(values)
    if low == high:
        return
    for end in (low, high):
        assert p_value([value - end for value in values]) == pytest.approx(0.05, abs=1e-7)


def test_equal_values_are_certain() -> None:
    assert p_value([0.0] * 6) == 1
    assert p_value([0.1] * 6) == 0
