"""The shared numerics: exact counts, independence of threads and pieces, agreement with slow references."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.seeds import generator
from tests import reference

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "trimmed_mean": lambda rows: robust.trimmed_mean(rows, (len(rows) - 1) // 4),
    "median": robust.median,
    "sign_agreement": robust.sign_agreement,
    "norms": robust.norms,
    "distances": robust.distances,
}
PER_COORDINATE = ["trimmed_mean", "median", "sign_agreement"]


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


@pytest.mark.parametrize("name", PER_COORDINATE)
@pytest.mark.parametrize("n", [1, 2, 20, 40])
def test_pieces_do_not_change_bits(name: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = rows(n, 5003)
    whole = FUNCTIONS[name](given)
    for piece in (1, 13, 1000):
        monkeypatch.setattr(robust, "NETWORK_PIECE", piece)
        monkeypatch.setattr(robust, "SORT_PIECE", piece)
        small = given[:, :50] if piece == 1 else given
        assert torch.equal(FUNCTIONS[name](small), whole[: small.shape[1]])
    part = FUNCTIONS[name](given[:, 100:200])  # a view: not contiguous
    assert torch.equal(part, whole[100:200])


@pytest.mark.parametrize("name", ["trimmed_mean", "median"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 17, 20, 31, 32])
def test_network_and_sort_give_the_same_bits(name: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = rows(n, 3000)
    monkeypatch.setattr(robust, "NETWORK_ROWS", n)
    network = FUNCTIONS[name](given)
    monkeypatch.setattr(robust, "NETWORK_ROWS", 0)
    assert torch.equal(network, FUNCTIONS[name](given))
    assert torch.equal(network.signbit(), FUNCTIONS[name](given).signbit())


@pytest.mark.parametrize("n", range(1, 11))
def test_network_orders_every_pattern_of_zeros_and_ones(n: int) -> None:
    """A network that orders all of these orders everything (Knuth, The Art of Computer Programming 3, 5.3.4, theorem Z)."""
    given = torch.tensor(list(product([0.0, 1.0], repeat=n))).t().contiguous()
    for low in range(n):
        assert torch.equal(robust._ordered_mean(given, low, low + 1), given.sort(dim=0).values[low])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 19, 20, 32, 33, 50])
def test_agrees_with_the_references(n: int) -> None:
    given = rows(n, 40)
    wide, ones = given.double().numpy(), np.ones(n)
    for share in (0.0, 0.2, 0.45, 0.499):
        twin = reference.trimmed_mean(wide, ones, share)
        np.testing.assert_allclose(robust.trimmed_mean(given, robust.floor_count(share, n)).numpy(), twin, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(robust.median(given).numpy(), reference.median(wide, ones), rtol=1e-6)
    assert robust.sign_agreement(given).tolist() == [reference.sign_sum(values) for values in wide.T]
    np.testing.assert_allclose(robust.distances(given).numpy(), reference.distances(wide), rtol=1e-12)
    np.testing.assert_allclose(robust.norms(given).numpy(), np.sqrt((wide**2).sum(1)), rtol=1e-12)


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
