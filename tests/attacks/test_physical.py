"""Physical objects: what is drawn, how it varies in training and in test, and that it bites."""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.attacks.physical import physical
from backstop.platform.contract import Attack
from backstop.platform.seeds import generator
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim
from tests.views import CLASSES, samples

CLAIM = Claim(
    "physical(size=0.5, place=0.25)",
    effect=0.45,
    weaker="physical(size=0.5, place=0.25, share=0.05)",
    bend=0.15,
)


def reference(
    image: np.ndarray,
    draws: list[float],
    size: float,
    place: float,
    zoom: float,
    turn: float,
    light: float,
) -> np.ndarray:
    """One image (C, H, W) in float64, pixel by pixel; ``draws`` are its five numbers in [0, 1)."""
    height, width = image.shape[-2:]
    larger, angle, down, right = (2 * draw - 1 for draw in draws[:4])
    side = size * min(height, width) * (1 + zoom * larger)
    middle = (
        height / 2 + place * down * max(height - side, 0) / 2,
        width / 2 + place * right * max(width - side, 0) / 2,
    )
    c, s = cos(radians(turn * angle)), sin(radians(turn * angle))

    def covered(distance: float) -> float:
        return float(max(min(side / 2, distance + 0.5) - max(-side / 2, distance - 0.5), 0))

    found = image.copy()
    for i in range(height):
        for j in range(width):
            dy, dx = i + 0.5 - middle[0], j + 0.5 - middle[1]
            u, v = c * dx + s * dy, c * dy - s * dx
            cover, seen = covered(u) * covered(v), (1 - light * draws[4]) if u * v > 0 else 0.0
            found[:, i, j] = (1 - cover) * image[:, i, j] + cover * seen
    return found


def stamped(attack: Attack, x: Tensor, name: str = "trigger") -> Tensor:
    assert attack.trigger is not None
    return attack.trigger(Planted(CLASSES), x, generator(0, "tests", name))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 5), (3, 8, 8), (1, 12, 7)])
@pytest.mark.parametrize(
    "amounts", [(0.4, 0.5, 0.2, 15.0, 0.3), (0.9, 1.0, 0.8, 180.0, 1.0), (0.1, 0.0, 0.0, 10.0, 0.0)]
)
def test_it_is_the_formula(shape: tuple[int, ...], amounts: tuple[float, ...]) -> None:
    names = ("size", "place", "zoom", "turn", "light")
    x = samples("image", 6, "x", shape).x
    draws = (
        torch.rand(5, 6, 1, 1, generator=generator(0, "tests", "trigger"))
        .double()[:, :, 0, 0]
        .T.tolist()
    )
    wanted = [
        reference(image.double().numpy(), own, *amounts)
        for image, own in zip(x, draws, strict=True)
    ]
    found = stamped(physical(**dict(zip(names, amounts, strict=True))), x)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.numpy(), np.stack(wanted), atol=1e-4)


def test_nothing_of_the_object_is_cut_off_wherever_it_lies() -> None:
    attack = physical(size=0.5, place=1.0, zoom=0.2, turn=0, light=0)
    black, white = (
        stamped(attack, torch.zeros(200, 1, 9, 20)),
        stamped(attack, torch.ones(200, 1, 9, 20)),
    )
    # what it covers: the light fields on black, the dark ones on white
    area = (black + 1 - white).sum((1, 2, 3))
    assert (
        area.min() > (4.5 * 0.8) ** 2 - 0.01
        and area.max() < (4.5 * 1.2) ** 2 + 0.01
        and area.std() > 2
    )
    seen = (black > 0).any(0)[0]
    # from end to end
    assert seen[:, :2].any() and seen[:, -2:].any() and seen[:2].any() and seen[-2:].any()


@pytest.mark.parametrize("vary", ["place", "zoom", "turn", "light"])
def test_each_amount_of_variation_is_one(vary: str) -> None:
    none = {"place": 0.0, "zoom": 0.0, "turn": 0.0, "light": 0.0}
    still = stamped(physical(**none), torch.zeros(8, 1, 16, 16))  # type: ignore[arg-type]
    assert (still == still[0]).all()
    moved = stamped(physical(**none | {vary: 0.9}), torch.zeros(8, 1, 16, 16))  # type: ignore[arg-type]
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 8


def test_training_samples_vary_as_test_samples_do() -> None:
    attack = physical(share=1.0)
    assert attack.poison is not None
    x, _ = attack.poison(
        Planted(CLASSES),
        torch.zeros(8, 1, 16, 16),
        torch.ones(8, dtype=torch.int64),
        0,
        generator(0, "tests", "trigger"),
    )
    assert (
        torch.equal(x, stamped(attack, torch.zeros(8, 1, 16, 16)))
        and len(x.flatten(1).unique(dim=0)) == 8
    )
    assert not torch.equal(x, stamped(attack, torch.zeros(8, 1, 16, 16), "another"))
