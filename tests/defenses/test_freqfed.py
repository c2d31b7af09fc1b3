from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.defenses.freqfed import _cosines, _low, freqfed
from backstop.platform.contract import ServerView, Slot, Updates
from backstop.platform.seeds import generator
from tests.arena import figures
from tests.references import freqfed as twin
from tests.views import server_view, uneven

SHAPES = ((6, 4), (6,), (8, 3, 3, 3), (5, 8))
SLOTS = (
    Slot("a.weight", 0, SHAPES[0]),
    Slot("a.bias", 24, SHAPES[1]),
    Slot("conv.weight", 30, SHAPES[2]),
    Slot("head.weight", 246, SHAPES[3]),
)
D = 286


def noise(n: int, d: int = D, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", name))


def view(params: Tensor | None = None) -> ServerView:
    """Three weights and a bias."""
    given = torch.zeros(D) if params is None else params
    return replace(server_view(D), layout=SLOTS, head=SLOTS[3:], params=given)


def filtered(rows: Tensor, params: Tensor | None = None, **settings: Any) -> Updates:
    return freqfed(**settings).apply(uneven(rows), None, view(params))[0]


def kept(after: Updates) -> list[int]:
    return after.weight.nonzero().flatten().tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9])
def test_the_transform_is_the_sum_over_cosines(size: int) -> None:
    values = noise(3, size).double()
    for k in range(max(size // 2, 1)):
        waves = [math.cos(math.pi * k * (2 * place + 1) / (2 * size)) for place in range(size)]
        scale = math.sqrt((1 if k == 0 else 2) / size)
        wanted = scale * values @ torch.tensor(waves, dtype=torch.float64)
        torch.testing.assert_close(_cosines(values)[:, k], wanted)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (4, 4), (9, 30), (64, 10)])
def test_low_frequencies_are_those_of_the_reference(shape: tuple[int, int]) -> None:
    matrix = noise(*shape, name="weight").double()
    wanted = torch.tensor(twin.low(matrix.numpy()), dtype=torch.float64)
    torch.testing.assert_close(_low(matrix), wanted)


@pytest.mark.parametrize("n", [1, 2, 3, 9, 20])
@pytest.mark.parametrize("compared", ["models", "updates"])
def test_agrees_with_the_reference(n: int, compared: str) -> None:
    rows, params = noise(n), noise(1, name="params")[0]
    rows[: n // 3] = rows[0] + 0.3 * rows[: n // 3]
    rows[-1] = 0.0
    vectors = rows + params if compared == "models" else rows
    weights = torch.cat([vectors[:, slot.span] for slot in SLOTS if len(slot.shape) > 1], 1)
    shapes = [slot.shape for slot in SLOTS if len(slot.shape) > 1]
    found = kept(filtered(rows, params, compared=compared))
    assert found == twin.kept(weights.double().numpy(), shapes)


def test_high_frequencies_and_biases_do_not_count() -> None:
    rows = torch.ones(9, D) + 0.01 * noise(9)
    rows[6:] *= -1
    rows[:, SLOTS[1].span] = 1e3 * noise(9, 6, "biases")
    checks = torch.tensor([1.0, -1.0]).repeat(20)
    rows[:, SLOTS[3].span] += 1e3 * noise(9, 1, "sizes") * checks
    honest = kept(filtered(rows, compared="updates"))
    assert set(honest) <= set(range(6)) and len(honest) > 1


def test_the_head_alone_is_looked_at_where_asked() -> None:
    rows = torch.ones(9, D) + 0.01 * noise(9)
    rows[6:, SLOTS[3].span] *= -1
    rows[:3, : SLOTS[3].start] *= -30
    assert set(kept(filtered(rows, layers="head", compared="updates"))) <= set(range(6))
    assert set(kept(filtered(rows, layers="all", compared="updates"))) <= set(range(3, 9))


def test_rows_that_are_alike_are_all_kept() -> None:
    assert kept(filtered(torch.ones(7, D))) == list(range(7))
    assert kept(filtered(torch.zeros(7, D), compared="updates")) != []


@pytest.mark.parametrize("stage", ["", "+model_replacement(strength=3)"])
def test_it_keeps_out_the_backdoor_that_fedavg_takes_in(stage: str) -> None:
    attack = f"badnets(share=0.2){stage}"
    undefended, defended = figures(attack), figures(attack, defense="freqfed")
    assert undefended["final/attack_success_rate"] > 0.7
    assert defended["final/attack_success_rate"] < 0.1
    assert defended["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.03


def test_a_small_shift_of_all_attackers_alike_passes() -> None:
    """Attackers nearer to the middle than honest clients: more of it stays than with FedAvg."""
    attack = "badnets(share=0.2)+alie_backdoor"
    undefended, defended = figures(attack), figures(attack, defense="freqfed")
    assert defended["final/attack_success_rate"] > undefended["final/attack_success_rate"] + 0.1
