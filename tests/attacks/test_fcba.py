"""FCBA: each client paints a combination of its own, all proper ones are there, and it bites."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from backstop.attacks.fcba import _proper, fcba
from backstop.platform.contract import Attack
from backstop.platform.params import BadInput
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim, figures
from tests.views import CLASSES, attack_view

CLAIM = Claim("fcba(share=0.2)", effect=0.5, weaker="fcba(share=0.02)", bend=0.1)
# of the authors' code, client by client
PUBLISHED = [
    {0},
    {1},
    {2},
    {3},
    {0, 1},
    {1, 2},
    {2, 3},
    {3, 0},
    {0, 2},
    {1, 3},
    {0, 1, 2},
    {1, 2, 3},
    {2, 3, 0},
    {3, 0, 1},
]


def reference(index: int, side: int) -> np.ndarray:
    """The image that a client paints, from the published bars of CIFAR-10."""
    corners = [(0, 0), (0, 9), (4, 0), (4, 9)]
    image = np.zeros((side, side))
    for number in PUBLISHED[index % 14]:
        row, column = corners[number]
        image[row, column : column + 6] = 1
    return image


def painted_by(attack: Attack, index: int, shape: tuple[int, ...]) -> torch.Tensor:
    """The first channel of a black image that a malicious client has poisoned."""
    assert attack.poison is not None
    x, y = torch.zeros(2, *shape), torch.tensor([1, 2])
    found, label = attack.poison(Planted(CLASSES), x, y, index, torch.Generator())
    assert label[0] == 0 and not found[1].any()  # the share is a half
    return found[0, 0]


@pytest.mark.parametrize("index", range(28))
def test_clients_paint_the_published_combinations_in_the_published_order(index: int) -> None:
    found = painted_by(fcba(share=0.5), index, (3, 32, 32))
    assert np.array_equal(found.numpy(), reference(index, 32))


@pytest.mark.parametrize("parts", range(2, 9))
def test_all_proper_combinations_are_there_once_the_smaller_first(parts: int) -> None:
    sets = [frozenset(one) for one in _proper(parts)]
    assert len(set(sets)) == len(sets) == 2**parts - 2
    assert all(0 < len(one) < parts for one in sets)
    assert all(len(one) <= len(other) for one, other in pairwise(sets))


def test_the_whole_is_shown_at_test_and_no_client_has_seen_it() -> None:
    attack = fcba(share=0.5)
    assert attack.trigger is not None
    whole = attack.trigger(Planted(CLASSES), torch.zeros(1, 1, 8, 8), torch.Generator())[0, 0]
    parts = [painted_by(attack, index, (1, 8, 8)) for index in range(14)]
    assert torch.equal(torch.stack(parts).amax(0), whole)
    assert all(part.sum() < whole.sum() for part in parts)


def test_two_of_a_batch_of_64_are_poisoned() -> None:
    attack, x, y = fcba(), torch.zeros(64, 3, 32, 32), torch.full((64,), 7)
    assert attack.poison is not None
    found, label = attack.poison(Planted(CLASSES), x, y, 0, torch.Generator())
    assert found.flatten(1).any(1).nonzero().flatten().tolist() == [0, 1]
    assert (label == 0).nonzero().flatten().tolist() == [0, 1]


@pytest.mark.parametrize(("side", "parts"), [(2, 4), (2, 2), (3, 10)])
def test_in_a_small_image_there_are_as_many_parts_as_pixels_at_most(side: int, parts: int) -> None:
    attack = fcba(share=0.5, parts=parts)
    assert attack.trigger is not None
    whole = attack.trigger(Planted(CLASSES), torch.zeros(1, 1, side, side), torch.Generator())
    for index in range(20):
        own = painted_by(attack, index, (1, side, side))
        assert 0 < own.sum() < whole.sum()


def test_a_shift_out_of_the_image_is_refused_and_one_pixel_is_painted_whole() -> None:
    view = attack_view("image", malicious=0)
    at_the_edge, outside = fcba(shift=7, share=0.5), fcba(shift=8)
    assert at_the_edge.init is not None and outside.init is not None
    at_the_edge.init(view)
    assert painted_by(at_the_edge, 3, (1, 8, 8)).nonzero().tolist() == [[7, 7]]
    with pytest.raises(BadInput, match="attack fcba: shift=8 leaves no pixel of an image of 8 x 8"):
        outside.init(view)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_outlasts_dba_as_published(seed: int) -> None:
    """Eight of twenty attack in eight rounds, with single bars and pairs; twenty rounds later."""
    changes = {"malicious": 0.4, "attack_stop": 8, "rounds": 28, "eval_every": 28, "seed": seed}
    lasting, plain = (
        figures(attack, tuple(changes.items()))["final/attack_success_rate"]
        for attack in ("fcba(share=0.05)", "dba(share=0.05)")
    )
    assert lasting > 0.5 and lasting > plain + 0.25


def test_of_few_malicious_clients_none_paints_a_pair() -> None:
    """Four paint what those of DBA do: the attack is the same, bit for bit."""
    found, plain = (figures(attack) for attack in ("fcba(share=0.2)", "dba(share=0.2)"))
    assert found == plain
