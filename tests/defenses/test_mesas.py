"""MESAS: its measures, layers and tests, its claim in a small federation, and where it fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.defenses.mesas import _kept, _uneven, mesas
from backstop.platform.contract import Slot, Updates
from backstop.platform.remedies.clusters import smaller_of_two_values
from backstop.platform.seeds import generator
from tests.arena import figures
from tests.references import mesas as twin
from tests.views import server_view

D = 24
LAYERS = (Slot("first", 0, (4, 5)), Slot("second", 20, (4,)))


def noise(n: int, name: str = "rows") -> Tensor:
    return 0.1 * torch.randn(n, D, generator=generator(0, "tests", "mesas", name, n))


def kept(rows: Tensor, **params: Any) -> list[int]:
    """Who keeps a weight, of a model with two layers."""
    seen = replace(server_view(D), layout=LAYERS)
    given = Updates(rows, torch.arange(1.0, len(rows) + 1), torch.arange(len(rows)))
    after = mesas(**params).apply(given, None, seen)[0]
    assert torch.equal(after.rows, rows)
    left = after.weight > 0
    assert torch.equal(after.weight[left], given.weight[left])
    return left.nonzero().flatten().tolist()


@pytest.mark.parametrize("n", [1, 2, 7, 21])
@pytest.mark.parametrize("parts", ["layers", "model"])
@pytest.mark.parametrize("level", [0.01, 0.15])
def test_agrees_with_the_reference(n: int, parts: str, level: float) -> None:
    first = server_view(D).params.double().numpy()
    for number in range(3):
        rows = noise(n, f"rows {number}")
        rows[: number * n // 5, 18:] += 0.4
        rows[-1] = 0.0
        spans = [slice(None)] + [slot.span for slot in LAYERS] * (parts == "layers")
        lines = [
            [
                value
                for span in spans
                for value in twin.measures(first[span] + row[span], first[span])
            ]
            for row in rows.double().numpy()
        ]
        wanted = twin.kept(list(zip(*lines, strict=True)), level)
        assert kept(rows, parts=parts, level=level) == wanted


@pytest.mark.parametrize("n", [2, 3, 8, 15])
def test_clusters_of_numbers_are_wards(n: int) -> None:
    for number in range(20):
        draws = generator(0, "tests", "numbers", n, number)
        values = torch.randint(0, 30, (n,), generator=draws)
        values[: n // 4] += 40
        found = smaller_of_two_values(values).nonzero().flatten().tolist()
        assert set(found) == twin.smaller(values.tolist())


def changed(measure: str) -> Tensor:
    """Twenty rows that are alike but for one measure of eight of them."""
    rows = noise(20)
    eight, others = rows[:8], rows[8:]
    if measure == "cos":
        eight -= 0.5 * server_view(D).params
    if measure == "eucl":
        eight *= 4
    if measure == "count":
        eight.abs_()
    if measure == "var":
        rows += 2.0
        eight[:, ::2] -= 3.7  # as long
    if measure == "min":
        others += others.sign()
        eight[:, 1:] += eight[:, 1:].sign()
        eight[:, 0] = 1e-6
    if measure == "max":
        eight[:, 0] = 4.0
    return rows


@pytest.mark.parametrize("measure", ["cos", "eucl", "count", "var", "min", "max"])
def test_eight_that_stand_apart_in_one_measure_are_pruned(measure: str) -> None:
    left = kept(changed(measure), parts="model")
    assert not set(range(8)) & set(left) and len(left) > 10


def test_a_layer_tells_what_the_model_does_not() -> None:
    rows = noise(20)
    rows[:, :20] += torch.tensor([8.0, -8.0]).repeat(10)  # the first layer is loud
    rows[:8, 20:] += torch.tensor([1.0, -1.0, 0.0, 0.0])
    assert kept(rows, level=0.001) == list(range(8, 20))
    assert kept(rows, level=0.001, parts="model") == list(range(20))


def test_one_in_twenty_is_far_away_and_one_in_ten_cannot_be() -> None:
    values = torch.arange(20.0).double()
    values[3] = 900.0
    assert _uneven(values, 1e-9)
    assert not _uneven(values[:10], 1e-9)


def test_more_than_half_of_the_round_stays() -> None:
    table = torch.arange(20.0).double().square().repeat(6, 1)
    table[:, :12] = torch.arange(12.0).double() / 100
    assert len(_kept(table, 0.5)) > 10
    table[:, :10] = 0.0
    table[:, 10:] = 1.0
    assert len(_kept(table, 0.5)) == 20


# a quarter of the clients malicious, as in the authors' experiments (remembered), all in each round
MANY = (("malicious", 0.25), ("per_round", 20), ("eval_every", 1))


@pytest.mark.parametrize(
    ("attack", "most"),
    [
        ("badnets(share=0.2)", 0.5),
        ("badnets(share=0.2)+model_replacement(strength=3)", 0.05),
        ("badnets(share=0.2)+neurotoxin", 0.4),
    ],
)
def test_a_quarter_of_twenty_is_kept_out(attack: str, most: float) -> None:
    undefended, defended = figures(attack, MANY), figures(attack, MANY, defense="mesas")
    assert undefended["final/attack_success_rate"] > 0.8
    assert defended["final/attack_success_rate"] < most
    assert defended["final/true_positive_rate"] > 0.9
    assert defended["final/clean_accuracy"] > 0.93


def test_two_of_ten_pass() -> None:
    """A limit of the method: so few values are never significant."""
    assert figures("badnets(share=0.2)", defense="mesas")["final/attack_success_rate"] > 0.6
