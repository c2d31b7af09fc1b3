"""LP attack: which layers are critical, what is sent of them, and what passes Multi-Krum so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from backstop.attacks.lp_attack import _crafted, lp_attack
from backstop.platform.contract import Slot
from backstop.platform.seeds import generator
from backstop.platform.threats.layers import poisoned_samples, ranked_layers, success_on
from tests.arena import Claim, figures
from tests.views import attack_view, model

CLAIM = Claim(
    "badnets(share=0.5)+lp_attack",
    effect=0.6,
    weaker="badnets(share=0.5)+lp_attack(strength=0.2)",
    bend=0.4,
)
Row = npt.NDArray[np.float64]
SIZES = (3, 1, 5, 2, 4)
LAYOUT = tuple(
    Slot(f"layer{index}", sum(SIZES[:index]), (size,)) for index, size in enumerate(SIZES)
)
D = sum(SIZES)
UNEQUAL = (("alpha", 0.5), ("rounds", 30), ("eval_every", 30))


def reference(
    honest: Row,
    row: Row,
    params: Row,
    success: Callable[[Row], float],
    threshold: float,
    strength: float,
) -> Row:
    """The data sheet's two steps and its mixture, layer by layer."""
    edges = np.cumsum((0, *SIZES))
    layers = [list(range(first, last)) for first, last in pairwise(edges)]
    benign, malicious = params + honest, params + row
    losses = []
    for number, layer in enumerate(layers):
        without = malicious.copy()
        without[layer] = benign[layer]
        losses.append((success(without), number))
    taken: list[int] = []
    for _, number in sorted(losses):
        taken += layers[number]
        brought = benign.copy()
        brought[taken] = malicious[taken]
        if success(brought) >= threshold * success(malicious):
            break
    sent = honest.copy()
    for place in taken:
        sent[place] = strength * row[place] + max(0, 1 - strength) * honest[place]
    return sent


@pytest.mark.parametrize("strength", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("threshold", [0.1, 0.8, 1.0])
@pytest.mark.parametrize("levels", [2, 50])  # few levels: many ties
def test_it_sends_what_the_data_sheet_says(levels: int, threshold: float, strength: float) -> None:
    draws, sizes = generator(0, "tests", "lp"), set()
    weights = torch.rand(D, generator=draws).double().numpy()

    def rate(model: Row) -> float:
        return round(levels / (1 + math.exp(-float(weights @ model)))) / levels

    for _ in range(20):
        honest, row, params = torch.randn(3, D, generator=draws)

        expected = reference(
            honest.double().numpy(),
            row.double().numpy(),
            params.double().numpy(),
            rate,
            threshold,
            strength,
        )
        found = _crafted(
            honest,
            row,
            params,
            LAYOUT,
            lambda model: rate(model.double().numpy()),
            threshold,
            strength,
        )
        torch.testing.assert_close(found, torch.from_numpy(expected).float())
        sizes.add(int((found != honest).sum()))
    assert len(sizes) > 1  # of the layers that were taken


def test_of_layers_that_matter_alike_the_first_is_critical() -> None:
    honest, row = torch.zeros(D), torch.ones(D)
    found = _crafted(honest, row, honest, LAYOUT, lambda _: 0.5, 0.8, 1.0)
    assert found.tolist() == [1.0] * 3 + [0.0] * (D - 3)
    names = [slot.name for slot in ranked_layers(honest, row, LAYOUT, lambda _: 0.5)]
    assert names == [slot.name for slot in LAYOUT]


def test_rows_that_are_honest_stay_and_a_single_layer_is_the_row() -> None:
    zero, row = torch.zeros(D), torch.ones(D)
    assert not _crafted(zero, zero, row, LAYOUT, lambda _: 1.0, 0.8, 1.0).any()
    single = (Slot("all", 0, (D,)),)
    assert torch.equal(_crafted(zero, row, zero, single, lambda _: 0.0, 0.8, 1.0), row)


def test_success_is_counted_on_the_poisoned_samples_of_this_rounds_members() -> None:
    def first_to_class_two(x: Tensor, y: Tensor, _index: int) -> tuple[Tensor, Tensor]:
        return x.index_fill(0, torch.tensor([0]), 1.0), y.index_fill(0, torch.tensor([0]), 2)

    view = replace(attack_view("table"), poison=first_to_class_two, members=torch.tensor([0, 2]))
    poisoned = poisoned_samples(view)
    assert poisoned.y.tolist() == [2, 2] and (poisoned.x == 1).all()  # one of each member's batch
    logits = model(view.params, poisoned.x)
    hits = (logits.argmax(1) == 2).double().mean().item()
    assert success_on(view, poisoned)(view.params) == hits


def test_where_nothing_is_poisoned_honest_rows_are_sent() -> None:
    view, craft = attack_view("image"), lp_attack().craft
    assert craft is not None
    assert torch.equal(craft(None, torch.ones(3, 24), view), view.unpoisoned())


def test_half_of_the_critical_layers_passes_multi_krum_where_the_patch_does_not() -> None:
    """As published for a small network; with λ = 1 the layers of this one are too much of it."""

    def success(attack: str) -> float:
        return figures(attack, UNEQUAL, defense="multi_krum(f=4)")["final/attack_success_rate"]

    plain, whole = success("badnets(share=0.5)"), success("badnets(share=0.5)+lp_attack")
    half = success("badnets(share=0.5)+lp_attack(strength=0.5)")
    assert plain < 0.1 and whole < 0.1 and half > 0.2
