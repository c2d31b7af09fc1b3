"""Single pixel: one white pixel at a fixed place means the target class.

x' = (1 - w) ⊙ x + w,   y' = y*,   w = 1 on one pixel

Shapes: x (b, …, H, W) in [0, 1], y (b,).

Source: E. Bagdasaryan, V. Shmatikov, "Blind Backdoors in Deep Learning Models", USENIX Security
2021, the single-pixel trigger of its experiments on ImageNet; row 3, column 23 is where the
authors' code (backdoors101) sets it.

Deviations: only the trigger is the paper's: it is learned from poisoned batches, a share of each,
and not through a changed loss in the victim's code, whose configuration for ImageNet poisons half
of a batch. The share is by default 20 of 64, the usual one in federated learning. Where the image
ends before the place, the pixel is the one next to its last, the last where there is one row or
column.

Checked: against the authors' code: the place.

Example:
>>> import torch
>>> from backstop.platform.threats.backdoor import Planted
>>> black = torch.zeros(1, 1, 3, 4)
>>> single_pixel(row=1).trigger(Planted(10), black, torch.Generator())[0, 0].tolist()
[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
"""

from __future__ import annotations

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


def single_pixel(
    *,
    target: Target = 0,
    row: Annotated[int, Range(0, 10**6, search=(0, 31)), "row of the pixel, from 0"] = 3,
    column: Annotated[int, Range(0, 10**6, search=(0, 31)), "column of the pixel, from 0"] = 23,
    share: Share = SHARE,
    source: Source = None,
) -> Attack:
    """One white pixel. Raises BadInput where source and target are one class."""

    def stamp(_: None, x: Tensor, _generator: torch.Generator) -> Tensor:
        height, width = x.shape[-2:]
        x = x.clone()
        x[..., min(row, max(height - 2, 0)), min(column, max(width - 2, 0))] = 1
        return x

    return backdoor("single_pixel", stamp, target=target, source=source, share=share)
