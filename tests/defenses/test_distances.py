"""Claims of the defenses that compare whole rows: rfa, bulyan, mda, meamed, monna, caf, smea, nnm,
bucketing, arc.
"""

from __future__ import annotations

import dataclasses
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.mda import _coverable
from backstop.platform import plugins
from backstop.platform.contract import Updates
from backstop.platform.seeds import generator
from tests import reference
from tests.reference import Array
from tests.references import caf, mda, monna, nnm, smea
from tests.views import server_view


def noise(n: int, d: int, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", "distances", name))


def updates(rows: Tensor, weight: list[float] | None = None) -> Updates:
    return Updates(
        rows, torch.tensor(weight) if weight else torch.ones(len(rows)), torch.arange(len(rows))
    )


def apply(defense: str, given: Updates, round: int = 0, **params: Any) -> Updates:  # noqa: A002 -- the view's field
    view = server_view(given.rows.shape[1], round)
    after: Updates = plugins.build("defenses", defense, params).apply(given, None, view)[0]
    return after


def aggregate(after: Updates) -> Array:
    return reference.weighted_mean(after.rows.double().numpy(), after.weight.double().numpy())


def rejected(after: Updates) -> list[int]:
    return (after.weight == 0).nonzero().flatten().tolist()


def spread(rows: Tensor) -> float:
    return float((rows.double() - rows.double().mean(0)).norm(dim=1).max())


# -- rfa


@pytest.mark.parametrize(
    "sizes",
    [
        [1e2] * 4,
        [1e12] * 4,
        [1e37] * 4,
        [2e16, 2e33, 1e3, 1e7],
        [1e33, 1e4, 1e16, 1e17],
        [1e18, 1e6, 1e30, 1e25],
    ],
)
@pytest.mark.parametrize("d", [1, 24])
def test_rfa_stays_among_the_honest_rows_however_far_the_others_are(
    sizes: list[float], d: int
) -> None:
    rows = noise(11, d)
    rows[:4] = torch.tensor(sizes)[:, None] * (1 + rows[:4] / 10)
    honest = rows[4:].double()
    found = aggregate(apply("rfa", updates(rows)))
    assert np.linalg.norm(found - honest.mean(0).numpy()) <= spread(honest)
    # why the default is not the few steps that suffice among equals
    few = aggregate(apply("rfa", updates(rows), iterations=3))
    assert np.linalg.norm(few) > min(sizes) / 20


def test_rfa_ends_at_the_geometric_median() -> None:
    rows, weight = noise(9, 5), [1.0, 2.0, 3.0, 1.0, 1.0, 4.0, 2.0, 1.0, 2.0]
    apart = rows.double().numpy() - aggregate(apply("rfa", updates(rows, weight), iterations=1000))
    # minus the slope of Σ α_i ‖z - u_i‖
    pull = (np.array(weight)[:, None] * apart / np.linalg.norm(apart, axis=1, keepdims=True)).sum(0)
    assert np.linalg.norm(pull) < 1e-4


def test_rfa_is_the_row_that_holds_half_the_weight() -> None:
    rows = noise(5, 7)
    np.testing.assert_allclose(
        aggregate(apply("rfa", updates(rows, [5.0, 1.0, 1.0, 1.0, 1.0]))),
        rows[0].numpy(),
        atol=1e-5,
    )


def test_rfa_gives_no_row_more_weight_and_one_all_of_its_own() -> None:
    given = updates(noise(9, 5), [1.0, 2.0, 3.0, 1.0, 1.0, 4.0, 2.0, 1.0, 2.0])
    after = apply("rfa", given, iterations=3)
    assert torch.equal(after.rows, given.rows) and torch.equal(after.client, given.client)
    assert (after.weight / given.weight).max() == 1 and (after.weight / given.weight).min() < 0.9


# -- bulyan


def test_bulyan_selects_with_the_krum_of_the_paper() -> None:
    # By hand: 29, 26, 35, 14, 36, 13, 39, 7, 41 are selected in this order; their median is 29, the
    # nearest three are 26, 29, 35. Plain distances with one more neighbor give 28.3; squares of
    # squares, one more neighbor, or one ranking for all give 26.3.
    rows = torch.tensor([1.0, 3, 7, 13, 14, 19, 24, 26, 29, 35, 36, 37, 39, 41, 51]).unsqueeze(1)
    assert apply("bulyan", updates(rows), f=3).rows.tolist() == [[30.0]]


def test_bulyan_bounds_the_one_coordinate_in_which_krum_is_fooled() -> None:
    rows = noise(11, 1000)
    rows[9:] = rows[:9].mean(0)  # nearer to all than they are to each other …
    rows[9:, 3] += 20.0  # … even with one coordinate far off
    honest = rows[:9, 3]
    assert apply("krum", updates(rows), f=2).weight[9:].any()
    assert honest.min() < apply("bulyan", updates(rows), f=2).rows[0, 3] < honest.max()


def test_bulyan_does_not_look_at_the_order_of_rows_where_no_scores_tie() -> None:
    rows = noise(15, 24)  # f = 3: at least two neighbors count in each step
    order = torch.randperm(15, generator=generator(0, "tests", "order"))
    assert torch.equal(
        apply("bulyan", updates(rows), f=3).rows, apply("bulyan", updates(rows[order]), f=3).rows
    )


# -- mda

PAIRS = list(combinations(range(9), 2))


@pytest.mark.parametrize("f", [None, 1, 2, 3, 4, 6, 10])
@pytest.mark.parametrize("kind", ["noise", "lattice", "circle", "equal"])
def test_mda_finds_the_first_of_all_tightest_subsets(kind: str, f: int | None) -> None:
    angle = torch.arange(11) * 2 * torch.pi / 11
    rows = {
        "noise": noise(11, 3),
        "lattice": noise(11, 2, "lattice").round(),  # many distances are equal
        "circle": (torch.stack([angle.cos(), angle.sin()], 1) * 8).round(),
        "equal": torch.ones(11, 2),
    }[kind]
    kept = (apply("mda", updates(rows), f=f).weight > 0).nonzero().flatten().tolist()
    assert kept == mda.tightest(rows.double().numpy(), 5 if f is None else f)


def test_mda_decides_whether_so_many_rows_cover_all_far_pairs() -> None:
    draws = generator(0, "tests", "graphs")
    graphs = [
        [
            pair
            for pair, drawn in zip(PAIRS, torch.rand(len(PAIRS), generator=draws), strict=True)
            if drawn < i / 40
        ]
        for i in range(40)
    ]
    # The first of the rows with most opponents, 0, is in no smallest cover: that is 5, 6, 7, 8.
    graphs.append(
        [(0, 5), (0, 6), (0, 7), (1, 5), (1, 6), (2, 6), (2, 7), (3, 7), (3, 8), (4, 5), (4, 8)]
    )
    for pairs in graphs:
        far = [
            sum(1 << other for other in range(9) if (row, other) in pairs or (other, row) in pairs)
            for row in range(9)
        ]
        least = next(
            k
            for k in range(9)
            if any(all({*pair} & {*taken} for pair in pairs) for taken in combinations(range(9), k))
        )
        assert [_coverable(far, (1 << 9) - 1, budget) for budget in range(9)] == [
            budget >= least for budget in range(9)
        ]


def test_mda_need_not_go_through_ten_thousand_million_subsets() -> None:
    rows = noise(50, 100)
    rows[torch.arange(10) * 5] *= 1.3
    assert rejected(apply("mda", updates(rows), f=10)) == list(range(0, 50, 5))


# -- meamed


def test_meamed_is_no_trimmed_mean() -> None:
    rows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [90.0]])
    # the median is 2, nearest to it 0, 1, 2, 3
    assert apply("meamed", updates(rows), f=1).rows.tolist() == [[1.5]]
    assert apply("trimmed_mean", updates(rows), trim_fraction=0.2).rows.tolist() == [[2.0]]


def test_meamed_leaves_out_f_far_values_whichever_side_they_are_on() -> None:
    rows = noise(9, 24)
    rows[0, ::2], rows[3, ::3], rows[8, 1::2] = 1e6, -1e30, 3e38
    honest = rows[[1, 2, 4, 5, 6, 7]]
    found = apply("meamed", updates(rows), f=3).rows[0]
    assert ((honest.min(0).values < found) & (found < honest.max(0).values)).all()


# -- monna


@pytest.mark.parametrize("f", [0, 1, 4, 9, 50])
def test_monna_agrees_with_the_reference(f: int) -> None:
    rows, weight = noise(10, 24) * 0.05, [float(i + 1) for i in range(10)]
    view = server_view(24)
    trusted = view.train(view.params, view.root)
    wanted = monna.monna(rows.double().numpy(), np.array(weight), f, trusted.double().numpy())
    np.testing.assert_allclose(
        aggregate(apply("monna", updates(rows, weight), f=f)), wanted, rtol=1e-5, atol=1e-9
    )


def test_monna_rejects_even_a_majority_that_agrees() -> None:
    view = dataclasses.replace(
        server_view(24), train=lambda params, samples: torch.full((24,), 0.5)
    )
    rows = noise(10, 24) * 0.1 + 0.5
    rows[3:] = -0.5
    after = plugins.build("defenses", "monna", {"f": 7}).apply(updates(rows), None, view)[0]
    assert rejected(after) == [3, 4, 5, 6, 7, 8, 9]
    # the majority is all that it sees
    assert rejected(apply("krum", updates(rows), f=3)) != [3, 4, 5, 6, 7, 8, 9]


# -- caf


def test_caf_takes_all_weight_from_outliers_in_several_directions() -> None:
    rows = noise(20, 24)
    rows[[2, 7], 0] += 500.0
    rows[[11, 19], 5] -= 300.0
    after = apply("caf", updates(rows), f=6)
    assert after.weight[[2, 7, 11, 19]].max() < 1e-3
    honest = rows[[i for i in range(20) if i not in {2, 7, 11, 19}]]
    assert np.linalg.norm(aggregate(after) - honest.double().mean(0).numpy()) < spread(honest) / 2


@pytest.mark.parametrize("size", [30.0, 1e35])
def test_caf_does_not_let_a_row_without_weight_set_the_scale(size: float) -> None:
    rows = noise(10, 4)
    # loses its weight in the first step; were it looked at in the next ones, 1 - τ / max τ would be
    # near 1 for all others
    rows[0] = size
    after = apply("caf", updates(rows), f=2)
    assert after.weight[0] == 0
    np.testing.assert_allclose(
        aggregate(after), caf.caf(rows.double().numpy(), np.ones(10), 2), rtol=1e-5
    )


def test_caf_without_attackers_is_the_weighted_mean() -> None:
    given = updates(noise(6, 4), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    assert torch.equal(apply("caf", given, f=0).weight, given.weight)


# -- smea


def test_smea_sees_rows_in_a_common_direction_that_no_distance_shows() -> None:
    rows = noise(16, 500)
    # as long as the others and as far from them, but all the same
    rows[12:] = noise(1, 500, "common")
    # a single one is a row like any other
    assert len({12, 13, 14, 15} - set(rejected(apply("smea", updates(rows), f=4)))) <= 1
    assert {12, 13, 14, 15}.isdisjoint(rejected(apply("mda", updates(rows), f=4)))


@pytest.mark.parametrize("n", [20, 24])
def test_smea_searches_greedily_where_subsets_are_too_many(n: int) -> None:
    rows = noise(n, 9)
    assert rejected(apply("smea", updates(rows), f=8)) == sorted(
        set(range(n)) - set(smea.greedy(rows.double().numpy(), 8))
    )
    rows[[1, 4, 6]] *= 50.0
    assert {1, 4, 6} <= set(rejected(apply("smea", updates(rows), f=8)))


# -- nnm


@pytest.mark.parametrize("f", [None, 0, 3, 9])
def test_nnm_makes_the_mixtures_of_the_reference(f: int | None) -> None:
    rows, weight = noise(10, 24), [float(i + 1) for i in range(10)]
    after = apply("nnm", updates(rows, weight), f=f)
    np.testing.assert_allclose(
        after.rows.numpy(),
        nnm.mixtures(rows.double().numpy(), np.array(weight), f),
        rtol=1e-4,
        atol=1e-6,
    )
    assert after.weight.tolist() == weight


def test_nnm_draws_honest_rows_together_and_keeps_far_ones_out_of_them() -> None:
    rows = noise(10, 24)
    rows[7:] = 1e6
    after = apply("nnm", updates(rows), f=3)
    assert spread(after.rows[:7]) < 1e-3
    np.testing.assert_allclose(after.rows[0].numpy(), rows[:7].mean(0).numpy(), atol=1e-6)


# -- bucketing


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(1, [1] * 7), (2, [1, 2, 2, 2]), (3, [1, 3, 3]), (4, [3, 4]), (7, [7]), (50, [7])],
)
def test_bucketing_puts_every_row_in_exactly_one_bucket(size: int, sizes: list[int]) -> None:
    weight = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    for number in range(20):
        # coordinate i tells of row i
        after = apply("bucketing", updates(torch.eye(7), weight), number, size=size)
        assert sorted((after.rows > 0).sum(1).tolist()) == sizes
        assert (after.rows > 0).sum(0).tolist() == [1] * 7
        torch.testing.assert_close(
            after.rows * after.weight[:, None], torch.tensor(weight) * (after.rows > 0)
        )


def test_bucketing_draws_new_buckets_in_each_round() -> None:
    buckets = {
        tuple(map(tuple, apply("bucketing", updates(torch.eye(7)), number).rows.tolist()))
        for number in range(10)
    }
    assert len(buckets) == 10


# -- arc


def test_arc_clips_as_many_rows_as_the_formula_says() -> None:
    rows = torch.arange(1.0, 11.0).unsqueeze(1)
    lengths = apply("arc", updates(rows), f=3).rows.flatten().tolist()
    assert lengths == [1, 2, 3, 4, 5, 6, 6, 6, 6, 6]  # ⌊2 · 3 · 7 / 10⌋ = 4
    rows = torch.arange(1.0, 243.0).unsqueeze(1)
    # 2 · 33 · 209 / 242 is 57; 2 · (33 / 242) · 209 in floating point is less
    after = apply("arc", updates(rows), f=33).rows
    assert (after != rows).sum() == 57


def test_arc_leaves_no_row_longer_than_an_honest_one_and_the_others_bit_for_bit() -> None:
    rows = noise(10, 24)
    rows[[0, 5, 9]] *= 1e6
    after = apply("arc", updates(rows), f=3).rows
    honest = rows[[1, 2, 3, 4, 6, 7, 8]].norm(dim=1)
    assert after.norm(dim=1).max() <= honest.max() * (1 + 1e-6)
    assert (after == rows).all(1).sum() == 6 and not (after == rows).all(1)[[0, 5, 9]].any()
