"""FTrojan: the trigger is what the whole way through YUV and DCT gives, it leaves the luminance
alone, and it bites.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from backstop.attacks.ftrojan import ftrojan
from backstop.platform.contract import Attack
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim
from tests.views import CLASSES, samples

CLAIM = Claim(
    "ftrojan(magnitude=200)+model_replacement(strength=3)",
    effect=0.6,
    weaker="ftrojan(magnitude=50)+model_replacement(strength=3)",
    bend=0.3,
)
# OpenCV's YCrCb: what one unit of Cr and of Cb adds to R, G and B, and the luminance of R, G and B
FROM_CR, FROM_CB = np.array([1.403, -0.714, 0.0]), np.array([0.0, -0.344, 1.773])
Y = np.array([0.299, 0.587, 0.114])


def raised(height: int, width: int, magnitude: float, block: int) -> np.ndarray:
    """What a channel (H, W) gains, in float64: block by block, two frequencies of nothing raised,
    and back to pixels.
    """
    plane = np.zeros((height, width))
    for top in range(0, height, block):
        for left in range(0, width, block):
            piece = plane[top : top + block, left : left + block]
            high, wide = piece.shape
            frequencies = np.zeros((high, wide))
            frequencies[max(high // 2 - 1, 0), max(wide // 2 - 1, 0)] += magnitude / 255
            frequencies[high - 1, wide - 1] += magnitude / 255
            piece[:] = idctn(frequencies, norm="ortho")
    return plane


def reference(image: np.ndarray, magnitude: float, block: int) -> np.ndarray:
    """One image (C, H, W) in float64; the same plane is added to Cr and to Cb, or to each channel
    where there are not three.
    """
    height, width = image.shape[-2:]
    plane = raised(height, width, magnitude, block)
    gains = FROM_CR + FROM_CB if len(image) == 3 else np.ones(len(image))
    stamped: np.ndarray = np.clip(image + gains[:, None, None] * plane, 0, 1)
    return stamped


def stamped(attack: Attack, x: torch.Tensor) -> torch.Tensor:
    assert attack.trigger is not None
    return attack.trigger(Planted(CLASSES), x, torch.Generator())


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 2, 5), (3, 8, 8), (2, 6, 9), (1, 28, 28), (3, 32, 32), (3, 33, 40)]
)
@pytest.mark.parametrize(("magnitude", "block"), [(30.0, 32), (200.0, 4)])
def test_it_is_the_formula(shape: tuple[int, ...], magnitude: float, block: int) -> None:
    x = samples("image", 2, "x", shape).x
    wanted = [reference(image.double().numpy(), magnitude, block) for image in x]
    np.testing.assert_allclose(
        stamped(ftrojan(magnitude=magnitude, block=block), x).numpy(), np.stack(wanted), atol=1e-6
    )


def test_on_cifar_it_is_the_published_trigger() -> None:
    """20 of 255 at (15, 15) and (31, 31) of Cr and Cb, and nothing else."""
    gray = torch.full((1, 3, 32, 32), 0.5)  # far from where it would be clipped
    change = (stamped(ftrojan(), gray) - gray)[0].double().numpy() * 255
    raised_by = np.zeros((32, 32))
    raised_by[15, 15] = raised_by[31, 31] = 20
    for plane, gain in zip(change, (1.403, -1.058, 1.773), strict=True):
        np.testing.assert_allclose(dctn(plane, norm="ortho"), gain * raised_by, atol=1e-3)
    assert abs(Y @ (FROM_CR + FROM_CB)) < 1e-3  # the luminance stays
