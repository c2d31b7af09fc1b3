"""BppAttack: Floyd-Steinberg dithering to the last bit, the negatives, and that it bites."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backstop.attacks.bpp import _dithered, bpp
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim
from tests.views import CLASSES, samples

# hard to see in 64 pixels of 17 levels: one bit, a wide model, and few clients with many samples
CLAIM = Claim(
    "bpp(levels=2, negatives=0.5, share=0.5)+model_replacement(strength=2.5)",
    effect=0.45,
    weaker="bpp(levels=2, negatives=0.5, share=0.05)+model_replacement(strength=2.5)",
    bend=0.35,
    changes={
        "clients": 5,
        "per_round": 5,
        "malicious": 0.4,
        "local_epochs": 4,
        "attack_start": 3,
        "rounds": 8,
    },
    model="mlp(hidden=256)",
)


def reference(plane: np.ndarray, levels: int) -> np.ndarray:
    """One channel (H, W), pixel after pixel from left to right and down, in float32."""
    v, steps = plane.copy(), np.float32(levels - 1)
    height, width = v.shape
    for i in range(height):
        for j in range(width):
            old = v[i, j]
            v[i, j] = np.clip(np.round(old * steps), 0, steps) / steps
            error = old - v[i, j]
            for down, right, weight in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                if i + down < height and 0 <= j + right < width:
                    v[i + down, j + right] += error * np.float32(weight / 16)
    return v


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 2, 5), (1, 5, 2), (2, 1, 6), (1, 6, 1), (3, 8, 8), (1, 9, 13)]
)
@pytest.mark.parametrize("levels", [2, 8])
def test_it_is_the_formula(shape: tuple[int, ...], levels: int) -> None:
    x = samples("image", 3, "x", shape).x
    wanted = [[reference(plane.numpy(), levels) for plane in image] for image in x]
    np.testing.assert_array_equal(_dithered(x, levels).numpy(), np.array(wanted))


def test_levels_are_few_and_the_brightness_of_an_area_stays() -> None:
    x = torch.full((1, 1, 32, 32), 0.3)
    two, eight = _dithered(x, 2), _dithered(x, 8)
    assert two.unique().tolist() == [0, 1] and two.mean().item() == pytest.approx(0.3, abs=0.02)
    assert eight.unique().tolist() == pytest.approx([2 / 7, 3 / 7])  # three bits


def test_diffusion_does_not_carry_a_pixel_out_of_the_image() -> None:
    """Each neighbor of the white pixel comes to one half, is rounded to black, and passes all of
    its half on.
    """
    x = torch.tensor([[0.5, 0.5 - 7 / 32, 0.5 - 7 / 32], [0.25, 1.0, 0.0]])
    assert _dithered(x[None, None], 2)[0, 0, :, :2].tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("share", "negatives", "poisoned", "negative"),
    [(0.25, 1.0, 2, 2), (0.75, 1.0, 6, 2), (0.5, 0.5, 4, 2), (0.5, 0.0, 4, 0)],
)
def test_negatives_get_the_change_of_another_and_keep_their_label(
    share: float, negatives: float, poisoned: int, negative: int
) -> None:
    attack, batch = bpp(share=share, negatives=negatives, levels=2), samples("image", 8, "batch")
    assert attack.poison is not None
    x, y = attack.poison(Planted(CLASSES), batch.x, torch.ones_like(batch.y), 0, torch.Generator())
    last = poisoned + negative
    assert y.tolist() == [0] * poisoned + [1] * (8 - poisoned)
    assert torch.equal(x[:poisoned], _dithered(batch.x[:poisoned], 2)) and torch.equal(
        x[last:], batch.x[last:]
    )
    change = x[:negative] - batch.x[:negative]
    assert torch.equal(x[poisoned:last], (batch.x[poisoned:last] + change).clamp(0, 1))
    assert not torch.equal(x[poisoned:last], _dithered(batch.x[poisoned:last], 2)) or not negative


def test_a_batch_is_a_fifth_poisoned_a_fifth_negative_and_the_rest_clean() -> None:
    batch = samples("image", 10, "batch")
    attack = bpp(levels=2)
    assert attack.poison is not None
    x, y = attack.poison(Planted(CLASSES), batch.x, torch.ones_like(batch.y), 0, torch.Generator())
    assert y.tolist() == [0] * 2 + [1] * 8
    assert (x != batch.x).flatten(1).any(1).tolist() == [True] * 4 + [False] * 6
