"""DBA: the parts are distinct and tile the whole, every client stamps its own, a later stage still
scales, and it bites.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch

from backstop.attacks.dba import dba
from backstop.attacks.model_replacement import model_replacement
from backstop.platform.contract import Attack
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.specs.part import to_chain
from backstop.platform.threats.backdoor import Planted, bars, part
from backstop.platform.training.attack_chain import attack_chain
from backstop.platform.training.mean import weighted_mean
from tests.arena import ARENA, Claim
from tests.views import CLASSES, attack_view

CLAIM = Claim("dba(share=0.2)", effect=0.65, weaker="dba(share=0.02)", bend=0.25)
PUBLISHED = ARENA.replace(per_round=10, server_lr=0.1, selection="random", eval_every=1)


def reference(height: int, width: int, size: int, gap: int, shift: int) -> set[tuple[int, int]]:
    """The whole trigger, pixel by pixel; where it has room, as published."""
    found = set()
    for row in range(height):
        for column in range(width):
            high = row in (shift, shift + 1 + gap)
            left, right = column - shift, column - shift - size - gap
            if high and (0 <= left < size or 0 <= right < size):
                found.add((row, column))
    return found


def trained(
    attack: Attack, index: int, shape: tuple[int, ...] = (1, 8, 8), state: object = None
) -> set[tuple[int, ...]]:
    """The pixels that a malicious client whitens."""
    assert attack.poison is not None
    x, y = torch.zeros(2, *shape), torch.tensor([1, 2])
    found, _ = attack.poison(
        Planted(CLASSES) if state is None else state, x, y, index, torch.Generator()
    )
    assert not found[1].any()  # the share is a half
    return {tuple(place) for place in found[0, 0].nonzero().tolist()}


def whole(attack: Attack, shape: tuple[int, ...] = (1, 8, 8)) -> set[tuple[int, ...]]:
    """The pixels that are white at test."""
    assert attack.trigger is not None
    return {
        tuple(place)
        for place in attack.trigger(Planted(CLASSES), torch.zeros(1, *shape), torch.Generator())[
            0, 0
        ]
        .nonzero()
        .tolist()
    }


@pytest.mark.parametrize(
    ("side", "size", "gap", "shift"),
    [(28, 4, 2, 0), (32, 6, 3, 0), (32, 4, 2, 5), (8, 3, 2, 0), (8, 1, 0, 2), (64, 10, 2, 1)],
)
def test_the_whole_is_as_published_where_it_has_room(
    side: int, size: int, gap: int, shift: int
) -> None:
    found = whole(dba(size=size, gap=gap, shift=shift), (3, side, side))
    assert found == reference(side, side, size, gap, shift) and len(found) == 4 * size


def test_the_four_bars_of_the_paper_for_its_four_attackers() -> None:
    parts = [trained(dba(share=0.5), index, (1, 28, 28)) for index in range(4)]
    assert parts == [{(row, left + step) for step in range(4)} for row in (0, 3) for left in (0, 6)]
    parts = [trained(dba(share=0.5), index, (3, 32, 32)) for index in range(4)]
    assert parts == [{(row, left + step) for step in range(6)} for row in (0, 4) for left in (0, 9)]
    assert trained(dba(size=4, gap=2, share=0.5), 1, (3, 32, 32)) == {
        (0, left) for left in range(6, 10)
    }


def test_five_of_a_batch_of_64_are_poisoned() -> None:
    attack, x, y = dba(), torch.zeros(64, 3, 32, 32), torch.full((64,), 7)
    assert attack.poison is not None
    found, label = attack.poison(Planted(CLASSES), x, y, 0, torch.Generator())
    assert found.flatten(1).any(1).nonzero().flatten().tolist() == list(range(5))
    assert (label == 0).nonzero().flatten().tolist() == list(range(5))


def test_the_factor_of_a_single_shot_replaces_the_model() -> None:
    """n = 10 clients a round, the server's rate 0.1, factor 100; the others send nothing: G becomes
    G + Δ.
    """
    spec = PUBLISHED.replace(
        attack=to_chain("dba(share=0.3)+model_replacement(strength=100)", "attack"),
        attackers="in_turn",
        rounds=1,
        alpha=None,
    )
    experiment = Experiment(spec, Path("unused"), "cpu")
    before = experiment.state
    alone = Experiment(spec.replace(attack=spec.attack[:1]), Path("unused"), "cpu")
    cohort = experiment.built.cohort(0)
    attacker = (cohort == experiment.built.attackers(0)).nonzero().flatten()
    _, plain, _ = alone._trained(alone.state, cohort)
    _, sent, _ = experiment._trained(before, cohort)
    rows = torch.zeros_like(sent.rows)
    rows[attacker] = sent.rows[attacker]
    after = before.params + weighted_mean(rows, torch.ones(len(rows))) * spec.server_lr
    torch.testing.assert_close(after, before.params + plain.rows[attacker][0])


def test_a_single_shot_has_one_attacker_in_each_of_its_rounds() -> None:
    """As published: rounds 203, 205, 207 and 209 after 200 clean ones, one part each."""
    shots = PUBLISHED.replace(
        attack=to_chain("dba", "attack"),
        attackers="in_turn",
        attack_start=3,
        attack_every=2,
        attack_stop=10,
        rounds=12,
        malicious=0.2,
    )
    built = Experiment(shots, Path("unused"), "cpu").built
    turns = {number: built.attackers(number).tolist() for number in range(12)}
    assert [number for number, there in turns.items() if there] == [3, 5, 7, 9]
    assert [turns[number] for number in (3, 5, 7, 9)] == built.malicious[:, None].tolist()


def test_on_digits_four_clients_stamp_four_places_and_the_fifth_the_first() -> None:
    parts = [trained(dba(share=0.5), index) for index in range(5)]
    assert parts[:4] == [
        {(row, left + step) for step in range(3)} for row in (0, 3) for left in (0, 5)
    ]
    assert parts[4] == parts[0] and whole(dba()) == set().union(*parts)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 5, 8, 100])
@pytest.mark.parametrize(
    "shape",
    [
        (8, 8, 4, 2, 0),
        (8, 8, 2, 3, 2),
        (28, 28, 4, 2, 0),
        (2, 5, 4, 2, 0),
        (1, 1, 4, 2, 0),
        (9, 4, 7, 50, 1),
    ],
)
def test_parts_are_distinct_and_tile_the_whole(
    parts: int, shape: tuple[int, int, int, int, int]
) -> None:
    pixels = bars(*shape)
    count = min(parts, len(pixels))
    pieces = [part(pixels, parts, number) for number in range(count)]
    assert all(pieces) and len(set(pixels)) == len(pixels) and list(chain(*pieces)) == pixels
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
    assert (
        part(pixels, parts, count) == pieces[0]
        and part(pixels, parts, 2 * count + count - 1) == pieces[-1]
    )


@pytest.mark.parametrize("side", range(2, 40))
def test_two_by_two_bars_stay_apart_and_inside_at_any_size_of_image(side: int) -> None:
    pixels = set(bars(side, side, 4, 2, 0))
    rows, columns = {row for row, _ in pixels}, {column for _, column in pixels}
    assert len(rows) == 2 and len(pixels) == 2 * len(columns) and len(columns) % 2 == 0
    assert max(rows | columns) < side


def test_in_a_chain_every_client_keeps_its_part_and_the_rows_are_scaled() -> None:
    view, whole_chain = (
        attack_view("image", malicious=4),
        attack_chain([dba(share=0.5), model_replacement(strength=7.0)], ["own", "own"]),
    )
    assert whole_chain.init is not None and whole_chain.craft is not None
    states = whole_chain.init(view)
    assert [trained(whole_chain, index, state=states) for index in range(4)] == [
        trained(dba(share=0.5), index) for index in range(4)
    ]
    assert whole_chain.craft(states, torch.ones(4, 24), view).tolist() == [[7.0] * 24] * 4


def test_a_shift_out_of_the_image_is_refused() -> None:
    view = attack_view("image", malicious=0)
    at_the_edge, outside = dba(shift=7), dba(shift=8)
    assert at_the_edge.init is not None and outside.init is not None
    at_the_edge.init(view)
    assert whole(at_the_edge) == {(7, 7)}
    with pytest.raises(BadInput, match="attack dba: shift=8 leaves no pixel of an image of 8 x 8"):
        outside.init(view)
