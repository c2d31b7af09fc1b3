"""DarkFed: no data is used, which surrogates stay, what they are taught, and that it bites."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from backstop.attacks.darkfed import _Smooth, _surrogates, _walk, darkfed
from backstop.platform.contract import AttackView, Samples
from backstop.platform.seeds import generator
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim
from tests.patterns import view_of_patterns
from tests.views import CLASSES, attack_view

CLAIM = Claim("darkfed(strength=5)", effect=0.15, weaker="darkfed", bend=0.08)
Rows = npt.NDArray[np.float64]


def reference(x: Rows, z: Rows, count: int, start: int) -> list[int]:
    """The walk with two angles and a set of those visited."""

    def cosine(one: Rows, other: Rows) -> float:
        length = float(np.linalg.norm(one) * np.linalg.norm(other))
        return float(one @ other) / length if length else 0.0

    walk = [start]
    while len(walk) < count:
        left = [number for number in range(len(x)) if number not in walk]
        here = walk[-1]
        alike = [round(cosine(x[here], x[n]) * cosine(z[here], z[n]), 6) for n in left]
        walk.append(left[int(np.argmin(alike))])
    return walk


@pytest.mark.parametrize("count", [1, 7, 20])
@pytest.mark.parametrize("case", ["random", "tied", "zero"])
def test_the_walk_goes_to_what_is_least_alike(case: str, count: int) -> None:
    draws = generator(0, "tests", "darkfed", case)
    x, z = torch.rand(20, 12, generator=draws), torch.randn(20, 3, generator=draws)
    if case == "tied":
        x, z = torch.ones(20, 12), torch.ones(20, 3)
    if case == "zero":
        z[::3] = 0
    start = int(torch.randint(20, (1,), generator=draws))
    expected = reference(x.double().numpy(), z.double().numpy(), count, start)
    assert _walk(x, z, count, start) == expected


def crafted(view: AttackView, **params: Any) -> Tensor:
    """What three clients send; the same draws each time."""
    attack = darkfed(**params)
    view = replace(view, generator=generator(0, "tests", "attack"))
    assert attack.plan is not None and attack.craft is not None
    state = attack.plan(Planted(view.classes), view)
    return attack.craft(state, torch.ones(3, len(view.params)), view)


def test_no_data_and_no_trained_row_is_used() -> None:
    view = attack_view("image")
    noise = generator(0, "tests", "other data")
    x, y = torch.rand(view.data.x.shape, generator=noise), 3 - view.data.y
    other = replace(view, samples=lambda: Samples(x, y))
    assert torch.equal(crafted(view, samples=64), crafted(other, samples=64))


def test_surrogates_are_noise_with_the_global_models_logits() -> None:
    view = attack_view("image")
    x, z = _surrogates(view, 200)
    assert len(x) == 3 * 26 + 3 and x.shape[1:] == (3, 8, 8)  # 40 % of 64, 64, 64 and 8
    assert x.min() == 0 and x.max() == 1 and 0.2 < (x == 0).float().mean() < 0.4
    torch.testing.assert_close(z, view.model(view.params, x))


def test_the_next_model_of_a_straight_way_is_foretold() -> None:
    start, way = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.25])
    smooth = _Smooth(start, start)
    for step in range(1, 40):
        smooth = smooth.after(start + step * way)
    torch.testing.assert_close(smooth.foretold(), start + 40 * way, rtol=1e-4, atol=1e-4)


def test_what_is_sent_makes_patched_noise_the_target() -> None:
    view = view_of_patterns("darkfed")
    attack = darkfed(target=2, samples=256)
    assert attack.trigger is not None
    (row, *_) = crafted(view, target=2, samples=256, epochs=20, near=0.0)
    x = torch.rand(64, *view.data.x.shape[1:], generator=generator(0, "tests", "noise"))
    stamped = attack.trigger(Planted(view.classes), x, torch.Generator())

    def labels(params: Tensor, inputs: Tensor) -> Tensor:
        return view.model(params, inputs).argmax(1)

    before = (labels(view.params, stamped) == 2).double().mean()
    after = (labels(view.params + row, stamped) == 2).double().mean()
    assert after > 0.9 > before + 0.3


def test_updates_are_less_alike_in_the_last_layer_than_without_mimicry() -> None:
    view = view_of_patterns("darkfed")
    head = torch.cat([torch.arange(slot.span.start, slot.span.stop) for slot in view.head])

    def alike(unlike: float) -> float:
        rows = crafted(view, samples=256, epochs=10, unlike=unlike)[:, head]
        cosines = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)
        return cosines.square().triu(1).sum().item() / 3

    assert alike(5.0) < 0.7 * alike(0.0)


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_the_factor_scales_what_is_sent(strength: float) -> None:
    view = attack_view("image")
    once, scaled = crafted(view, samples=64), crafted(view, samples=64, strength=strength)
    # the rows before are avoided as they were trained
    torch.testing.assert_close(scaled, strength * once)


@pytest.mark.parametrize(
    ("side", "where"), [(32, slice(22, 30)), (8, slice(4, 6)), (3, slice(0, 1)), (1, slice(0, 1))]
)
def test_the_square_is_a_quarter_of_the_side_two_pixels_from_the_edges(
    side: int, where: slice
) -> None:
    trigger = darkfed().trigger
    assert trigger is not None
    stamped = trigger(Planted(CLASSES), torch.zeros(1, 3, side, side), torch.Generator())
    expected = torch.zeros(1, 3, side, side)
    expected[..., where, where] = 1
    assert torch.equal(stamped, expected)
