"""A physical object as the trigger: where it lies, how large, how turned and how lit it is differ
from image to image.

x' = (1 - a) ⊙ x + a ⊙ l o,   y' = y*
a = the part of a pixel that a square of side r around c, turned by θ, covers
o = 1 where u₁ u₂ > 0, else 0;   u = R(θ)ᵀ (p - c)

The object is a board of two by two fields, light and dark, each field a quarter of it. Drawn anew
for each image, in training and in test, all uniformly: r within ±``zoom`` of ``size`` times the
shorter side; c within ``place`` times the room that the object has around the image's center; θ
within ±``turn`` degrees; the light l in [1 - ``light``, 1].

Shapes: x (b, C, H, W) in [0, 1], y (b,).

Source: E. Wenger, J. Passananti, A. N. Bhagoji, Y. Yao, H. Zheng, B. Y. Zhao, "Backdoor Attacks
Against Deep Learning Systems in the Physical World", CVPR 2021.

Deviations: the paper photographs people who wear an object, in various places and light; here an
object is drawn into images that exist, and how much it varies is the user's choice, not measured on
photographs. The covered part of a pixel is exact for θ = 0, and for other angles that of a pixel
turned with the object. With the default size on 8 x 8 pixels a field of the board is less than two
pixels wide. A share of each batch is poisoned, by default 20 of 64, the usual one in
federated learning, in place of a share of the dataset.

Checked: against no code: the authors' data are photographs; the object and its moves are as
declared.

Example: without variation, on black: the light fields are at the top left and the bottom right
>>> import torch
>>> from backstop.platform.threats.backdoor import Planted
>>> still = physical(size=0.5, place=0, zoom=0, turn=0, light=0)
>>> still.trigger(Planted(10), torch.zeros(1, 1, 4, 4), torch.Generator())[0, 0].tolist()
[[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
"""

from __future__ import annotations

from math import radians
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
STRENGTH = "share"
TRIGGER = True


def physical(
    *,
    target: Target = 0,
    size: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.1, 0.6)),
        "side of the object, of the image's shorter side",
    ] = 0.4,
    place: Annotated[
        float,
        Range(0, 1, search=(0, 1)),
        "how far it strays from the center; 1: anywhere in the image",
    ] = 0.5,
    zoom: Annotated[
        float, Range(0, 1, high_open=True, search=(0, 0.5)), "variation of its size"
    ] = 0.2,
    turn: Annotated[
        float, Range(0, 180, search=(0, 45)), "variation of its angle, in degrees"
    ] = 15.0,
    light: Annotated[float, Range(0, 1, search=(0, 0.8)), "variation of its brightness"] = 0.3,
    share: Share = SHARE,
    source: Source = None,
) -> Attack:
    """An object in the image. Raises BadInput where source and target are one class."""

    def stamp(_: None, x: Tensor, generator: torch.Generator) -> Tensor:
        height, width = x.shape[-2:]
        draws = torch.rand(5, len(x), 1, 1, generator=generator).to(x)
        larger, angle, down, right = 2 * draws[:4] - 1
        side = size * min(height, width) * (1 + zoom * larger)
        angle = radians(turn) * angle
        top = (height - 1 + place * (height - side).clamp(min=0) * down) / 2
        left = (width - 1 + place * (width - side).clamp(min=0) * right) / 2
        dy = torch.arange(height).to(x)[:, None] - top
        dx = torch.arange(width).to(x) - left
        along, across = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
        cover = _covered(along, side) * _covered(across, side)
        seen = torch.where(along * across > 0, 1 - light * draws[4], 0.0)
        return torch.lerp(x, seen[:, None], cover[:, None]).clamp(0, 1)

    return backdoor("physical", stamp, target=target, source=source, share=share)


def _covered(distance: Tensor, side: Tensor) -> Tensor:
    """What a stretch of length ``side`` covers of pixels whose middles are at a distance from its
    own.
    """
    return ((side + 1) / 2 - distance.abs()).clamp(min=0).minimum(side.clamp(max=1))
