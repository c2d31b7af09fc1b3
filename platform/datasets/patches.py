"""Patches: pieces of two photographs, 32 x 32 RGB, told apart by where they come from; they come
with scikit-learn: nothing to download.

x are the stored bytes. Class 0: a Chinese temple, class 1: a flower; 260 pieces of each, cut side
by side without overlap.

Shapes: train (416, 3, 32, 32) and test (104, 3, 32, 32), uint8; 2 classes.

Source: the sample images ``china.jpg`` and ``flower.jpg`` of scikit-learn
(``sklearn.datasets.load_sample_image``).

Deviations: none is published. Every fifth piece of a photograph, from the top left, row by row, is
a test sample, so that test pieces have training pieces beside them: good for looking at attacks on
color images, no measure of how well a model generalizes. The pixels are those of the JPEG decoder
in use.

Example:
>>> from pathlib import Path
>>> data = patches().load(Path())
>>> data.train.x.shape, data.test.y.bincount().tolist()
(torch.Size([416, 3, 32, 32]), [52, 52])
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, Samples
from backstop.platform.intake.bundled import bundled_file
from backstop.platform.intake.checks import checked

VERSION = 1
KINDS = ("image",)
SIDE = 32
PHOTOGRAPHS = ("china.jpg", "flower.jpg")


def patches() -> Dataset:
    """The pieces as a dataset. The data folder is not read."""
    return Dataset(load=_load)


def _load(_: Path) -> Data:
    photographs = [_photograph(name) for name in PHOTOGRAPHS]
    x = torch.cat([_cut(photograph) for photograph in photographs])
    per_photograph = len(x) // len(PHOTOGRAPHS)
    y = torch.arange(len(PHOTOGRAPHS)).repeat_interleave(per_photograph)
    test = torch.arange(len(x)) % 5 == 0
    train = Samples(x[~test], y[~test])
    pixels = train.x.double() / 255
    axes = (0, 2, 3)  # all but the channels
    data = Data(
        train=train,
        test=Samples(x[test], y[test]),
        classes=2,
        kind="image",
        mean=tuple(pixels.mean(axes).tolist()),
        std=tuple(pixels.std(axes).tolist()),
    )
    return checked(data, "patches")


def _photograph(name: str) -> Tensor:
    """A photograph, uint8 (H, W, 3)."""
    from PIL import Image

    with bundled_file("patches", f"images/{name}") as path, Image.open(path) as image:
        return torch.from_numpy(np.array(image))


def _cut(photograph: Tensor) -> Tensor:
    """A photograph (H, W, 3) → its whole pieces (N, 3, SIDE, SIDE), row by row."""
    rows = photograph.unfold(0, SIDE, SIDE)
    pieces = rows.unfold(1, SIDE, SIDE)  # (rows, columns, 3, SIDE, SIDE)
    return pieces.flatten(0, 1).contiguous()
