"""WaNet: the field of the formula, on images of any shape, the noise mode, and that it bites."""

from __future__ import annotations

from math import floor

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.attacks.wanet import _warp, wanet
from backstop.platform.contract import Attack, Samples
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import attack_view, samples

CLAIM = Claim("wanet(strength=4)", effect=0.4, weaker="wanet(strength=1)", bend=0.3)


def cubic(distance: float) -> float:
    """The convolution kernel of bicubic interpolation with a = -3/4."""
    t, a = abs(distance), -0.75
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def reference(image: Tensor, control: Tensor, strength: float) -> np.ndarray:
    """One image (C, H, W), pixel by pixel in float64: field, shift, clip to the image, bilinear
    reading.
    """
    x, points = image.double().numpy(), control.double().numpy()
    (channels, height, width), k = x.shape, points.shape[-1]
    found = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            at = [i * (k - 1) / max(height - 1, 1), j * (k - 1) / max(width - 1, 1)]
            shift = np.zeros(2)
            for m in range(floor(at[0]) - 1, floor(at[0]) + 3):
                for n in range(floor(at[1]) - 1, floor(at[1]) + 3):
                    shift += (
                        cubic(at[0] - m)
                        * cubic(at[1] - n)
                        * points[:, min(max(m, 0), k - 1), min(max(n, 0), k - 1)]
                    )
            row = min(max(i + strength * shift[1] / 2, 0), height - 1)
            column = min(max(j + strength * shift[0] / 2, 0), width - 1)
            top, left = floor(row), floor(column)
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            down, across = row - top, column - left
            for c in range(channels):
                upper = (1 - across) * x[c, top, left] + across * x[c, top, right]
                lower = (1 - across) * x[c, below, left] + across * x[c, below, right]
                found[c, i, j] = (1 - down) * upper + down * lower
    return found


def started(attack: Attack, shape: tuple[int, ...]) -> tuple[Attack, object]:
    assert attack.init is not None
    return attack, attack.init(attack_view("image", shape=shape))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 5), (2, 7, 3), (3, 8, 8)])
@pytest.mark.parametrize(("strength", "grid"), [(0.5, 4), (6.0, 3), (2.0, 1)])
def test_it_is_the_formula(shape: tuple[int, ...], strength: float, grid: int) -> None:
    attack, state = started(wanet(strength=strength, grid=grid), shape)
    x = samples("image", 3, "x", shape).x
    assert attack.trigger is not None
    found = attack.trigger(state, x, torch.Generator())
    for one, image in zip(found, x, strict=True):
        np.testing.assert_allclose(one.numpy(), reference(image, state.own[0], strength), atol=2e-5)  # type: ignore[attr-defined]


def test_the_field_is_in_pixels_of_each_axis_and_ends_at_the_border() -> None:
    x = torch.arange(10.0).reshape(1, 1, 2, 5) / 10
    shift = torch.zeros(1, 2, 2, 5)
    torch.testing.assert_close(_warp(x, shift), x)
    shift[:, 0] = 4.0  # half pixels: two columns to the right
    torch.testing.assert_close(
        _warp(x, shift)[0, 0], torch.tensor([[0.2, 0.3, 0.4, 0.4, 0.4], [0.7, 0.8, 0.9, 0.9, 0.9]])
    )
    shift[:, 0], shift[:, 1] = 0.0, -1.0  # half a row up
    torch.testing.assert_close(
        _warp(x, shift)[0, 0, 1], torch.tensor([0.25, 0.35, 0.45, 0.55, 0.65])
    )


def test_control_points_lie_half_a_pixel_off_on_average() -> None:
    _, state = started(wanet(), (1, 8, 8))
    control = state.own  # type: ignore[attr-defined]
    assert control.shape == (1, 2, 4, 4) and control.abs().mean().item() == pytest.approx(1)
    assert control.min() < 0 < control.max()


def test_noise_mode_keeps_labels_and_strays_half_a_pixel_from_the_trigger() -> None:
    ramp = torch.arange(32.0).expand(20, 1, 32, 32) / 31  # a place's brightness tells its column
    attack, state = started(wanet(share=0.1), (1, 32, 32))
    assert attack.poison is not None and attack.trigger is not None
    y = torch.full((20,), 3)
    x, labels = attack.poison(state, ramp, y, 0, generator(0, "tests", "poison"))
    assert labels.tolist() == [0] * 2 + [3] * 18
    # two poisoned, four noisy
    assert (x != ramp).flatten(1).any(1).tolist() == [True] * 6 + [False] * 14
    triggered = attack.trigger(state, ramp, torch.Generator())
    assert torch.equal(x[:2], triggered[:2])
    stray = (x[2:6] - triggered[2:6])[..., 4:-4] * 31
    # uniform on half a pixel either way
    assert stray.abs().max() <= 0.5 + 1e-4 and 0.23 < stray.abs().mean() < 0.27
    assert not torch.allclose(x[2], x[3], atol=1e-3)  # each its own noise


@pytest.mark.parametrize(
    ("share", "noise", "noisy"), [(0.5, 2.0, 4), (0.25, 0.0, 0), (0.25, 0.5, 1), (1.0, 2.0, 0)]
)
def test_as_many_noisy_samples_as_asked_for_and_there_are(
    share: float, noise: float, noisy: int
) -> None:
    attack, state = started(wanet(share=share, noise=noise), (3, 8, 8))
    batch = samples("image", 8, "batch")
    assert attack.poison is not None
    x, y = attack.poison(
        state, batch.x, torch.ones_like(batch.y), 0, generator(0, "tests", "poison")
    )
    assert ((x != batch.x).flatten(1).any(1) & (y == 1)).sum() == noisy


def test_noise_avoids_the_poisoned_where_a_source_is_given() -> None:
    attack, state = started(wanet(source=1, share=1.0), (3, 8, 8))
    batch = Samples(samples("image", 6, "batch").x, torch.tensor([2, 1, 3, 2, 1, 3]))
    assert attack.poison is not None and attack.trigger is not None
    x, y = attack.poison(state, batch.x, batch.y, 0, generator(0, "tests", "poison"))
    assert y.tolist() == [2, 0, 3, 2, 0, 3]
    assert torch.equal(x[[1, 4]], attack.trigger(state, batch.x[[1, 4]], torch.Generator()))


def test_a_batch_is_a_tenth_poisoned_a_fifth_noisy_and_the_rest_clean() -> None:
    attack, state = started(wanet(), (3, 8, 8))
    batch = samples("image", 10, "batch")
    assert attack.poison is not None
    draws = generator(0, "tests", "poison")
    x, y = attack.poison(state, batch.x, torch.ones_like(batch.y), 0, draws)
    assert y.tolist() == [0] + [1] * 9
    assert (x != batch.x).flatten(1).any(1).tolist() == [True] * 3 + [False] * 7
