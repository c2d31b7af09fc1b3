"""FTrojan: a little of a middle and of the highest frequency in the image's chrominance means the
target class.

x' = clip(D⁻¹(D(x) + m E), 0, 1),   y' = y*
E = 1 at two frequencies of each block of the chrominance channels, else 0

where D takes RGB to YCrCb, whose chrominance the authors call U and V, and each block of 32 x 32
pixels to its orthonormal DCT-II. As D is linear, x' = clip(x + m D⁻¹(E), 0, 1).

Shapes: x (b, C, H, W) in [0, 1], y (b,).

Source: T. Wang, Y. Yao, F. Xu, S. An, H. Tong, T. Wang, "An Invisible Black-box Backdoor Attack
through Frequency Domain", ECCV 2022, the section on the attack's steps. The blocks, the frequencies
(15, 15) and (31, 31), and m = 20 of 255 are the authors' setting for CIFAR-10.

Deviations: where an image is not a multiple of the block, the blocks at its end are smaller; in a
block of n pixels along an axis the frequencies are n / 2 - 1 (rounded down, at least 0) and n - 1,
as 15 and 31 are of 32. Images that do not have three channels carry the trigger in each channel.
Nothing is rounded to whole gray values, and the way there and back through rounded factors, which
moves every pixel by up to a thousandth, is left out. A share of each batch is poisoned, by default
20 of 64, the usual one in federated learning, in place of a share of the dataset. On 8 x 8 pixels
the default is weak.

Checked: against the authors' code: colors (OpenCV's YCrCb), frequencies, m on CIFAR-10.

Example: the highest frequency of two pixels alternates
>>> import torch
>>> _wave(4, 2, highest=True)
tensor([ 0.7071, -0.7071,  0.7071, -0.7071])
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import backdoor
from backstop.platform.threats.parameters import SHARE, Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "magnitude"
TRIGGER = True
# R, G and B of one unit of Cr and one of Cb: OpenCV's YCrCb
CHROMINANCE = (1.403, -0.714 - 0.344, 1.773)


def ftrojan(
    *,
    target: Target = 0,
    magnitude: Annotated[
        float,
        Range(0, 1e4, low_open=True, search=(5, 200)),
        "added to each frequency, in 255ths, m",
    ] = 20.0,
    block: Annotated[int, Range(1, 10**4, search=(4, 32)), "side of a block in pixels"] = 32,
    share: Share = SHARE,
    source: Source = None,
) -> Attack:
    """Two frequencies more. Raises BadInput where source and target are one class."""

    def stamp(_: None, x: Tensor, _generator: torch.Generator) -> Tensor:
        pattern = sum(
            torch.outer(*(_wave(length, block, highest=top) for length in x.shape[-2:]))
            for top in (False, True)
        )
        color = torch.tensor(CHROMINANCE if x.shape[-3] == 3 else (1.0,)).reshape(-1, 1, 1)
        return (x + (magnitude / 255 * color * pattern).to(x)).clamp(0, 1)

    return backdoor("ftrojan", stamp, target=target, source=source, share=share)


def _wave(length: int, block: int, *, highest: bool) -> Tensor:
    """The DCT-II's basis vector of the middle or the highest frequency in each block along an axis
    of ``length`` pixels.
    """
    pieces = []
    for start in range(0, length, block):
        pixels = min(block, length - start)
        frequency = pixels - 1 if highest else max(pixels // 2 - 1, 0)
        wave = torch.cos(pi * (2 * torch.arange(pixels) + 1) * frequency / (2 * pixels))
        pieces.append(wave * sqrt((2 if frequency else 1) / pixels))
    return torch.cat(pieces)
