"""The shared numerics: exact counts, independence of threads and pieces, agreement with slow
references.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.kernels import cpu, gpu
from backstop.platform.seeds import generator
from tests import reference

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "trimmed_mean": lambda rows: robust.trimmed_mean(rows, (len(rows) - 1) // 4),
    "median": robust.median,
    "masked mean": lambda rows: robust.trimmed_mean(
        rows, (len(rows) - 1) // 4, votes=len(rows) // 3
    ),
    "mean_around_median": lambda rows: robust.mean_around_median(rows, -(-2 * len(rows) // 3)),
    "mean_around_median of some": lambda rows: robust.mean_around_median(
        rows, 1, range(0, len(rows), 2)
    ),
    "sign_sum": robust.sign_sum,
    "mix": lambda rows: robust.mix(torch.arange(3.0 * len(rows)).view(3, -1).sin(), rows),
    "norms": robust.norms,
    "norms_around": lambda rows: robust.norms_around(rows, torch.arange(rows.shape[1]).sin()),
    "cosine_distances": robust.cosine_distances,
    "distances": robust.distances,
}
SUMS = {"norms", "norms_around", "distances", "cosine_distances", "mix"}
PER_COORDINATE = [name for name in FUNCTIONS if name not in SUMS]


def rows(n: int, d: int) -> Tensor:
    found = torch.randn(n, d, generator=generator(0, "tests", "robust", n, d))
    found[:, ::7] = found[:, ::7].round()  # ties and zeros of both signs
    return found


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 20, 33, 100, 1000])
def test_counts_are_exact(n: int) -> None:
    for percent in range(101):
        exact = Fraction(percent, 100) * n
        assert robust.floor_count(percent / 100, n) == exact.__floor__()
        assert robust.ceil_count(percent / 100, n) == exact.__ceil__()
        assert robust.round_count(percent / 100, n) == (exact + Fraction(1, 2)).__floor__()
    assert robust.floor_count(1e-7, n) == 0 and robust.ceil_count(1e-7, n) == 1


@pytest.mark.parametrize("n", range(1, 41))
def test_fractions_that_mean_counts_give_them(n: int) -> None:
    for f in range(n + 1):
        for count in (robust.floor_count, robust.ceil_count, robust.round_count):
            assert count(f / n, n) == f
            assert count(f / n, 3 * n) == 3 * f
        if f < n:
            # halves go up, also those that are no finite decimal
            assert robust.round_count((2 * f + 1) / (2 * n), n) == f + 1
    assert robust.floor_count(np.nextafter(0.5, 0).item(), 2 * n) == n - 1, (
        "less than a half is less than a half"
    )


def test_decimals_stay_decimals() -> None:
    assert (
        robust.ceil_count(0.6, 20) == 12
        and robust.floor_count(0.333, 3) == 0
        and robust.ceil_count(0.334, 3) == 2
    )
    for d in (38_410, 1_000_003, 11_173_962):  # shares of coordinates: as exact as the decimal is
        for share in (0.05, 0.3, 0.999, 0.0001, 0.123456):
            exact = Fraction(str(share)) * d
            assert (robust.floor_count(share, d), robust.ceil_count(share, d)) == (
                exact.__floor__(),
                exact.__ceil__(),
            )


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 21, 33])
@pytest.mark.parametrize("d", [1, 2, 3, 7, 8, 17, 100, 511, 513, 1027])
def test_equal_rows_have_equal_distances_to_every_other(
    n: int, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "PIECE", 500)
    for one, other in {(0, n - 1), (n - 2, n - 1), (0, 1), (n // 2 - 1, n // 2)}:
        given = torch.randn(n, d, generator=generator(0, "tests", "equal", n, d, one, other))
        given[other] = given[one]
        others = [i for i in range(n) if i not in (one, other)]
        tables = {
            "distances": robust.distances(given),
            "angles": robust.cosine_distances(given),
            "products": robust.products(given),
            "centered": robust.centred_products(robust.distances(given)),
            "distances on a GPU": gpu.squared_distances(given),
            "angles on a GPU": gpu.squared_distances(given, 1 / robust.norms(given)),
        }
        for name, table in tables.items():
            assert torch.equal(table[one][others], table[other][others]), name
        assert robust.norms(given)[one] == robust.norms(given)[other]
        assert gpu.squares(given)[one] == gpu.squares(given)[other]
        order = robust.krum_order(given, None)[0].tolist()
        assert order.index(one) < order.index(other)


@pytest.mark.parametrize("n", [3, 5, 8, 21])
def test_mirrored_rows_are_equally_far(n: int) -> None:
    given = torch.randn(n, 700, generator=generator(0, "tests", "mirror", n))
    given[0], given[n - 1] = 0.0, -given[1]
    for table in (robust.distances(given), gpu.squared_distances(given)):
        assert table[0, 1] == table[0, n - 1]


def test_floating_point_would_miscount() -> None:
    assert int(0.29 * 100) == 28 and robust.floor_count(0.29, 100) == 29
    assert torch.tensor([1.0] * 80 + [-1.0] * 20).mean() < 0.6000001  # close is not the law
    assert robust.agree(torch.tensor([[1.0]] * 80 + [[-1.0]] * 20), 0.6).item()
    assert not robust.agree(torch.tensor([[1.0]] * 79 + [[-1.0]] * 21), 0.6).item()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("n", "d"), [(1, 100_003), (2, 70_001), (20, 40_009), (40, 20_011)])
def test_threads_do_not_change_bits(name: str, n: int, d: int) -> None:
    given, threads = rows(n, d), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = FUNCTIONS[name](given)
        torch.set_num_threads(4)
        assert torch.equal(alone, FUNCTIONS[name](given))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n", [1, 2, 20, 40])
def test_pieces_and_views_do_not_change_what_comes_out(
    name: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = rows(n, 5003)
    whole = FUNCTIONS[name](given)
    for piece in (cpu.TILE, 8 * cpu.TILE):
        monkeypatch.setattr(cpu, "PIECE", piece)
        pieces = FUNCTIONS[name](given.clone())
        assert (
            torch.equal(pieces, whole)
            if name in PER_COORDINATE
            else torch.allclose(pieces, whole, rtol=1e-6)
        )
    if name in PER_COORDINATE:
        # a view: not contiguous
        assert torch.equal(FUNCTIONS[name](given[:, 100:200]), whole[100:200])
    assert torch.equal(FUNCTIONS[name](given.t().contiguous().t()), FUNCTIONS[name](given.clone()))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 20, 32, 33, 50])
def test_both_sets_of_kernels_agree(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given, weight = rows(n, 3000), torch.arange(2.0 * n).view(2, -1).cos()
    monkeypatch.setattr(gpu, "PIECE", 1000)
    for low, high, votes in (
        (0, n, 0),
        ((n - 1) // 2, n // 2 + 1, 0),
        (0, n, n // 2),
        (n - 1, n, 0),
    ):
        there = gpu.ordered_mean(given, robust.comparators(n, low, high), low, high, votes)
        torch.testing.assert_close(
            there, robust._ordered_mean(given, low, high, votes), rtol=1e-6, atol=1e-9
        )
    for count in {1, max(n // 2, 1), n}:
        there = gpu.mean_around_median(given, robust.comparators(n, 0, n), count)
        torch.testing.assert_close(
            there, robust.mean_around_median(given, count), rtol=1e-6, atol=1e-9
        )
    assert torch.equal(gpu.sign_sum(given), robust.sign_sum(given))
    torch.testing.assert_close(
        gpu.squares(given), robust.norms(given).square(), rtol=1e-6, atol=0.0
    )
    torch.testing.assert_close(
        gpu.squared_distances(given), robust.distances(given), rtol=1e-6, atol=0.0
    )
    torch.testing.assert_close(
        gpu.mix(weight.double(), given), robust.mix(weight, given), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_without_numba_rows_on_a_cpu_go_through_torch(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = rows(9, 2000)
    compiled = FUNCTIONS[name](given)
    monkeypatch.setattr(robust, "COMPILED", False)
    monkeypatch.delattr(cpu, "in_pieces")  # nothing asks for the compiled loops
    torch.testing.assert_close(FUNCTIONS[name](given.clone()), compiled, rtol=1e-5, atol=1e-6)


def test_distances_are_computed_once_for_a_matrix_and_again_when_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[str] = []
    over = robust._over_coordinates

    def counting(given: Tensor, kernel: str, *shape: int) -> Tensor:
        counted.append(kernel)
        return over(given, kernel, *shape)

    monkeypatch.setattr(robust, "_over_coordinates", counting)
    given = rows(6, 400)
    first = robust.distances(given)
    first.fill_(7.0)  # what was handed out is a copy
    second = robust.distances(given)
    assert counted == ["squared_distances"] and not second.diagonal().any()
    robust.cosine_distances(given)
    robust.products(given)
    robust.krum_order(given, 1)
    assert counted == ["squared_distances", "squares"]
    angles = robust.cosine_distances(given)
    assert torch.equal(angles, robust.cosine_distances(given)) and len(counted) == 2
    given[0] += 1.0
    assert (
        not torch.equal(robust.distances(given), second) and counted.count("squared_distances") == 2
    )
    assert (
        torch.equal(robust.distances(given.clone()), robust.distances(given))
        and counted.count("squared_distances") == 4
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e18, 1e30])
def test_distances_and_norms_are_right_at_every_scale(scale: float) -> None:
    given = rows(7, 900) * scale
    wide = given.double()
    direct = (wide[:, None] - wide).square().sum(2)
    torch.testing.assert_close(robust.distances(given), direct, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(robust.norms(given), wide.norm(dim=1), rtol=1e-6, atol=0.0)


def test_angles_and_centred_products_follow_from_the_distances() -> None:
    given = rows(8, 300)
    given[3] = given[2] * 2
    given[4] = given[2] + 1e-4 * given[5]
    given[6] = 0.0
    wide, weight = given.double(), torch.arange(1.0, 9.0, dtype=torch.float64)
    unit = wide / wide.norm(dim=1, keepdim=True).clamp_min(1e-300)
    found = robust.cosine_distances(given)
    torch.testing.assert_close(found, (1 - unit @ unit.t()).fill_diagonal_(0), rtol=0.0, atol=1e-6)
    exact = (unit[2] - unit[4]).square().sum() / 2  # 1 - cos without the cancellation
    assert 0 < exact < 1e-7 and found[2, 4].item() == pytest.approx(exact.item(), rel=0.05)
    lengths = torch.tensor([1.0, 1e-30, 1e30, 1.0, 1e-20, 5.0, 1.0, 1e25])
    torch.testing.assert_close(
        robust.cosine_distances(given * lengths[:, None]), found, rtol=1e-4, atol=1e-12
    )
    torch.testing.assert_close(
        gpu.squared_distances(given, 1 / robust.norms(given).clamp_min(1e-300))[:6, :6] / 2,
        found[:6, :6],
        rtol=1e-4,
        atol=1e-12,
    )
    # squares of up to 1,500 in float32
    torch.testing.assert_close(robust.products(given), wide @ wide.t(), rtol=1e-6, atol=5e-4)
    for given_weight in (None, weight):
        share = torch.full_like(weight, 1 / 8) if given_weight is None else weight / weight.sum()
        centered = wide - share @ wide
        torch.testing.assert_close(
            robust.centred_products(robust.distances(given), given_weight),
            centered @ centered.t(),
            rtol=1e-5,
            atol=1e-3,
        )


def test_clip_leaves_short_rows_and_zeros_alone() -> None:
    given = rows(6, 50)
    given[2] = 0.0
    limits = robust.norms(given) * torch.tensor([2.0, 0.5, 1.0, 0.1, 1.0, 0.0])
    after = robust.clip(given, limits)
    assert torch.equal(after[[0, 2, 4]], given[[0, 2, 4]]) and not after[5].any()
    torch.testing.assert_close(robust.norms(after)[[1, 3]], limits[[1, 3]], rtol=1e-6, atol=0.0)


def in_row_order(weight: Tensor, given: Tensor) -> Tensor:
    """The sums of a mixture in float64, one row after the other, rounded at the end."""
    total = np.zeros((len(weight), given.shape[1]))
    for row, share in zip(given.numpy(), weight.t().numpy(), strict=True):
        total += share[:, None] * row.astype(np.float64)
    return torch.from_numpy(total.astype(np.float32))


@pytest.mark.parametrize("lines", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_a_mixture_adds_its_rows_one_after_the_other_in_float64(n: int, lines: int) -> None:
    given = rows(n, 3 * cpu.RUN + 7)
    weight = torch.randn(lines, n, generator=generator(0, "tests", "mix"), dtype=torch.float64)
    weight[weight.abs() < 0.3] = 0.0
    assert torch.equal(robust.mix(weight, given), in_row_order(weight, given))


@pytest.mark.parametrize("n", [1, 2, 3, 21])
@pytest.mark.parametrize("d", [1, cpu.RUN - 1, 2 * cpu.RUN + 3])
def test_equal_mixtures_have_the_bits_of_sums_of_their_own(n: int, d: int) -> None:
    given = rows(n, d)
    weight = torch.rand(n, n, generator=generator(0, "tests", "equal"), dtype=torch.float64)
    weight[weight < 0.3] = 0.0
    for places in (range(n), [0] * n, [i // 2 for i in range(n)], [i % 3 % n for i in range(n)]):
        some = weight[list(places)]
        mixed = robust.mix(some, given).view(torch.int32)  # the signs of zeros too
        assert torch.equal(mixed, in_row_order(some, given).view(torch.int32))


def test_equal_mixtures_are_added_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[int] = []
    kernel: Callable[..., None] = cpu.mix

    def counting(weight: Any, *others: Any) -> None:
        added.append(len(weight))
        kernel(weight, *others)

    monkeypatch.setattr(cpu, "mix", counting)
    weight = torch.tensor([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    given = rows(2, 100)
    assert torch.equal(robust.mix(weight, given), in_row_order(weight.double(), given))
    assert added == [3]


@pytest.mark.parametrize("d", [1, 500, robust.STRIP, 70_001])
def test_norms_around_a_center_have_the_bits_of_the_differences(d: int) -> None:
    given, center = rows(6, d), rows(1, d)[0]
    given[1], given[2], given[3] = center, 1e30, center * 1e-30
    assert torch.equal(robust.norms_around(given, center), robust.norms(given - center))
    assert torch.equal(robust.norms_around(given, center * 0), robust.norms(given))


@pytest.mark.parametrize("n", [2, 3, 7, 20, 50])
def test_the_mean_around_the_median_keeps_what_is_left_when_ends_are_taken_off(n: int) -> None:
    given = rows(n, 300).round(decimals=1)  # many are equally far
    ordered = given.double().sort(dim=0).values
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    for count in range(1, n + 1):
        low = torch.zeros(300, dtype=torch.int64)
        for left in range(n - 1, count - 1, -1):
            below = middle - ordered.gather(0, low[None])[0]
            low += below > ordered.gather(0, low[None] + left)[0] - middle
        kept = ordered.gather(0, low + torch.arange(count)[:, None])
        total = torch.zeros(300, dtype=torch.float64)
        for line in kept:
            total += line
        assert torch.equal(robust.mean_around_median(given, count), (total / count).float())


def test_some_rows_have_the_mean_around_their_own_median() -> None:
    given, some = rows(9, 300), [7, 0, 3, 4]
    there = robust.mean_around_median(given, 3, some)
    assert torch.equal(there, robust.mean_around_median(given[some], 3))


def test_mean_around_median_golden() -> None:
    given = torch.tensor([[0.0, 1.0], [1.0, 1.0], [5.0, 2.0], [6.0, 3.0], [100.0, 3.0]])
    # 1, 5 and 6 around 5; of 1, 1, 2, 3, 3 around 2 all ends are equally far and the upper ones go
    # first
    assert robust.mean_around_median(given, 3).tolist() == pytest.approx([4.0, 4 / 3])
    assert robust.mean_around_median(given, 5).tolist() == pytest.approx([22.4, 2.0])
    assert robust.mean_around_median(given, 1).tolist() == [5.0, 2.0]
    with pytest.raises(ValueError, match="cannot take the mean of 0 of 5"):
        robust.mean_around_median(given, 0)


@pytest.mark.parametrize("n", range(1, 11))
def test_network_orders_every_pattern_of_zeros_and_ones(n: int) -> None:
    """A network that orders all of these orders everything (Knuth, The Art of Computer Programming
    3, 5.3.4, theorem Z).
    """
    given = torch.tensor(list(product([0.0, 1.0], repeat=n))).t().contiguous()
    for low in range(n):
        for found in (
            robust._ordered_mean(given, low, low + 1),
            gpu.ordered_mean(given, robust.comparators(n, low, low + 1), low, low + 1, 0),
        ):
            assert torch.equal(found, given.sort(dim=0).values[low])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 19, 20, 32, 33, 50])
def test_agrees_with_the_references(n: int) -> None:
    given = rows(n, 40)
    wide, ones = given.double().numpy(), np.ones(n)
    for share in (0.0, 0.2, 0.45, 0.499):
        twin = reference.trimmed_mean(wide, ones, share)
        np.testing.assert_allclose(
            robust.trimmed_mean(given, robust.floor_count(share, n)).numpy(),
            twin,
            rtol=1e-5,
            atol=1e-6,
        )
    np.testing.assert_allclose(
        robust.median(given).numpy(), reference.median(wide, ones), rtol=1e-6
    )
    assert robust.sign_agreement(given).tolist() == [
        reference.sign_sum(values) for values in wide.T
    ]
    np.testing.assert_allclose(
        robust.distances(given).numpy(), reference.distances(wide), rtol=1e-6
    )
    np.testing.assert_allclose(robust.norms(given).numpy(), np.sqrt((wide**2).sum(1)), rtol=1e-6)


def test_rows_stay_as_they_are() -> None:
    for n in (20, 40):
        given = rows(n, 500)
        before = pickle.loads(pickle.dumps(given))
        for function in FUNCTIONS.values():
            function(given)
        assert torch.equal(given, before)


def test_distances_of_near_equal_and_of_huge_rows() -> None:
    given = torch.full((40, 100), 3.0)
    given[1:] += torch.arange(1, 40)[:, None] * 2.0**-21
    found = robust.distances(given)
    assert torch.equal(found, found.t()) and not found.diagonal().any()
    assert (found.fill_diagonal_(1.0) > 0).all()
    given[3], given[4] = 3.4e38, -3.4e38
    assert robust.distances(given).isfinite().all() and robust.norms(given).isfinite().all()
    assert 3 in robust.krum_order(given, 2)[0][-2:] and 4 in robust.krum_order(given, 2)[0][-2:]


def test_trimming_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot trim 2 of 4"):
        robust.trimmed_mean(rows(4, 3), 2)
