"""The same numbers as ByzFL, an independent library, wherever both define a method alike. Runs
where byzfl is installed.

All rows have the same weight: the library has no sample counts. CAF is compared only up to the step
in which a row loses all its weight: there the row goes on to set the scale of the others.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.platform import plugins
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator
from tests import reference
from tests.reference import Array
from tests.views import server_view

with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own
    # the part that draws figures wants more libraries
    patch.setitem(sys.modules, "byzfl.benchmark", ModuleType("byzfl.benchmark"))
    byzfl = pytest.importorskip("byzfl", reason="byzfl is not installed", exc_type=ImportError)

N = 10
FAR = [1, 4, 8]
F = len(FAR)


def cases() -> dict[str, Tensor]:
    draws = generator(0, "tests", "byzfl")
    found = {"random": torch.randn(N, 24, generator=draws)}
    for name, size in (("far", 50.0), ("farther", 1e4)):
        found[name] = torch.randn(N, 24, generator=draws)
        found[name][FAR] = size * torch.randn(F, 24, generator=draws)
    found["together"] = torch.randn(N, 24, generator=draws)
    found["together"][FAR] = 5.0
    return found


CASES = cases()


def ours(name: str, rows: Tensor, trusted: Tensor | None = None, **params: Any) -> Updates:
    view = server_view(rows.shape[1])
    if trusted is not None:
        view = dataclasses.replace(view, train=lambda given, samples: trusted)
    defense = plugins.build("defenses", name, params)
    after: Updates = defense.apply(
        Updates(rows, torch.full((len(rows),), 7.0), torch.arange(len(rows))),
        defense.init(view),
        view,
    )[0]
    return after


def aggregate(after: Updates) -> Array:
    return reference.weighted_mean(after.rows.double().numpy(), after.weight.double().numpy())


def theirs(rule: Any, rows: Tensor) -> Array:
    # clipping works in place: a copy is given
    return np.asarray(rule(rows.double().numpy()), np.float64)


# Krum there is the mean over n - f - 1 neighbors, here the sum over n - f - 2: the same choice
# with one attacker more there. The geometric median there starts at zero, here at the mean: the
# same where both have arrived.
RULES: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
    "trimmed_mean": ("trimmed_mean", {"trim_fraction": F / N}, lambda: byzfl.TrMean(F)),
    "median": ("median", {}, lambda: byzfl.Median()),
    "krum": ("krum", {"f": F}, lambda: byzfl.Krum(F + 1)),
    "multi_krum": ("multi_krum", {"f": F, "keep": N - F - 1}, lambda: byzfl.MultiKrum(F + 1)),
    "rfa": (
        "rfa",
        {"iterations": 1000, "smoothing": 1e-6},
        lambda: byzfl.GeometricMedian(nu=1e-6, T=1000),
    ),
    "meamed": ("meamed", {"f": F}, lambda: byzfl.Meamed(F)),
    "mda": ("mda", {"f": F}, lambda: byzfl.MDA(F)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", RULES)
def test_same_aggregate(rule: str, case: str) -> None:
    name, params, build = RULES[rule]
    rows = CASES[case]
    np.testing.assert_allclose(
        aggregate(ours(name, rows, **params)), theirs(build(), rows), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("case", CASES)
def test_same_mean_around_a_trusted_row(case: str) -> None:
    rows = CASES[case]
    np.testing.assert_allclose(
        aggregate(ours("monna", rows, trusted=rows[2], f=F)),
        theirs(byzfl.MoNNA(F, idx=2), rows),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("name", "params", "build"),
    [
        ("nnm", {"f": F}, lambda: byzfl.NNM(F)),
        ("arc", {"f": F}, lambda: byzfl.ARC(F)),
        ("norm_clip", {"norm": 4.0}, lambda: byzfl.Clipping(4.0)),
    ],
)
def test_same_rows(name: str, params: dict[str, Any], build: Callable[[], Any], case: str) -> None:
    rows = CASES[case]
    np.testing.assert_allclose(
        ours(name, rows, **params).rows.numpy(), theirs(build(), rows), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("case", CASES)
def test_same_centre_round_after_round(case: str) -> None:
    defense, rule = (
        plugins.build("defenses", "centered_clipping", {"radius": 4.0, "iterations": 3}),
        byzfl.CenteredClipping(L=3, tau=4.0),
    )
    view = server_view(24)
    state = defense.init(view)
    for number in range(3):
        rows = CASES[case] + number
        after, state = defense.apply(Updates(rows, torch.ones(N), torch.arange(N)), state, view)
        np.testing.assert_allclose(aggregate(after), theirs(rule, rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 10])
def test_as_many_buckets(size: int) -> None:
    rows = CASES["random"]
    # drawn from different generators
    found, wanted = ours("bucketing", rows, size=size).rows, theirs(byzfl.Bucketing(size), rows)
    assert found.shape == wanted.shape


# One power step from a random start stands for the top eigenvector there: exact only in one
# dimension.


@pytest.mark.parametrize("case", CASES)
def test_same_least_varying_subset(case: str) -> None:
    rows = CASES[case][:, :1]
    np.testing.assert_allclose(
        aggregate(ours("smea", rows, f=F)), theirs(byzfl.SMEA(F), rows), rtol=1e-5, atol=1e-5
    )


def test_same_filter_while_no_row_without_weight_sets_the_scale() -> None:
    # τ adds up to 36.2 at the mean 0, its maximum is 9.61: a weight of 10 - 3.8 is left, more than
    # 10 - 2 · 2, so there is a second step.
    rows = torch.tensor([[-3.0], [-2.0], [-2.0], [-1.0], [0.0], [0.0], [1.0], [1.9], [2.0], [3.1]])
    after = ours("caf", rows, f=2)
    assert after.weight[9] == 0  # it is the second step's mean that is compared
    np.testing.assert_allclose(aggregate(after), theirs(byzfl.CAF(2), rows), rtol=1e-5, atol=1e-5)
