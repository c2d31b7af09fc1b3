"""Random streams: named, independent of order, and without a trace in torch's global generator."""

from __future__ import annotations

import hashlib
from itertools import product

import pytest
import torch

from backstop.platform import seeds


def test_a_stream_is_the_sha256_of_its_coordinates() -> None:
    digest = hashlib.sha256(b"int:7/str:cohort/int:3").digest()
    assert seeds.stream(7, "cohort", 3) == int.from_bytes(digest[:8], "big") // 2


def test_streams_never_change() -> None:
    # Every published number hangs on these: a change of the rule is a change of specs.ENGINE.
    assert seeds.stream(0) == 3696793467068528757
    assert seeds.stream(0, "cohort", 3) == 533082080244571305
    assert torch.randint(1000, (4,), generator=seeds.generator(0, "cohort", 3)).tolist() == [
        165,
        694,
        708,
        838,
    ]


def test_different_names_give_different_streams() -> None:
    names = [
        (seed, what, number, client)
        for seed, what, number, client in product(
            range(3), ("batches", "poison"), range(4), range(5)
        )
    ]
    names += [(seed, what) for seed, what in product(range(3), ("batches", "poison", "model"))]  # type: ignore[misc]
    assert len({seeds.stream(*name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "a", 1), (0, "a", "1")),
        ((0, "a", "b"), (0, "a/b")),
        ((1, 11), (11, 1)),
        ((0,), (0, "")),
    ],
)
def test_names_that_look_alike_differ(one: tuple[int, str], other: tuple[int, str]) -> None:
    assert seeds.stream(*one) != seeds.stream(*other)


def test_seeds_fit_a_generator() -> None:
    assert all(0 <= seeds.stream(seed, "x") < 2**63 for seed in (0, 1, 2**31 - 1))


def test_a_generator_does_not_depend_on_draws_of_another() -> None:
    first = torch.rand(5, generator=seeds.generator(1, "a"))
    torch.rand(100, generator=seeds.generator(1, "b"))
    assert torch.equal(first, torch.rand(5, generator=seeds.generator(1, "a")))


def test_seeded_names_the_draws_of_constructors() -> None:
    with seeds.seeded(3, "model"):
        one = torch.nn.Linear(4, 3)
    torch.rand(7)
    with seeds.seeded(3, "model"):
        other = torch.nn.Linear(4, 3)
    with seeds.seeded(4, "model"):
        third = torch.nn.Linear(4, 3)
    assert torch.equal(one.weight, other.weight)
    assert not torch.equal(one.weight, third.weight)


def test_seeded_leaves_no_trace_even_after_an_error() -> None:
    before = torch.default_generator.get_state()
    with pytest.raises(ZeroDivisionError), seeds.seeded(3, "model"):
        torch.rand(10)
        raise ZeroDivisionError
    assert torch.equal(before, torch.default_generator.get_state())
