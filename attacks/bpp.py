"""BppAttack: an image of fewer levels of brightness, dithered, means the target class.

Q(v) = the nearest to v of 0, 1 / (m - 1), …, 1,   y' = y*
x' = x with each value v, in reading order, replaced by Q(v), and its error v - Q(v) spread
negatives, with the true label: x_j + (x'_i - x_i), clipped to [0, 1]

7/16 of an error are added to the pixel at the right, 3/16, 5/16 and 1/16 to those below, from left
to right. A negative j carries the change of another sample i.

Shapes: x (b, C, H, W) in [0, 1], y (b,).

Source: Z. Wang, J. Zhai, S. Ma, "BppAttack: Stealthy and Efficient Trojan Attacks against Deep
Neural Networks via Image Quantization and Contrastive Adversarial Learning", CVPR 2022; R. W.
Floyd, L. Steinberg, "An Adaptive Algorithm for Spatial Greyscale", Proceedings of the Society for
Information Display, 1976, for the dithering. m = 8 and, of each batch, 0.2 poisoned, 0.2 negative
and 0.6 clean are the authors' settings.

Deviations: the paper describes negatives by adversarial attacks on the model under training
(remembered); here, as in the authors' code, they carry the change of another sample, which needs no
model: the samples after the poisoned ones get the changes of the poisoned ones, as far as the batch
has samples. Another common form of the trigger rounds without dithering. Images that have few
levels themselves (the digits have 17) hardly show eight; ``levels=2`` is for them. The authors'
figures count samples of the target class as successes; ours leave them out.

Checked: against the authors' code: dithering, negatives, shares.

Example: two levels; three gray pixels of a row
>>> import torch
>>> _dithered(torch.tensor([[[[0.4, 0.4, 0.4]]]]), 2)
tensor([[[[0., 1., 0.]]]])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor, chosen, companions
from backstop.platform.threats.parameters import Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True


def bpp(
    *,
    target: Target = 0,
    levels: Annotated[
        int, Range(2, 256, search=(2, 32)), "levels of brightness that are left, m"
    ] = 8,
    negatives: Annotated[
        float,
        Range(0, 1, search=(0, 1)),
        "samples with the change of another and their true label, for each poisoned one",
    ] = 1.0,
    share: Share = 0.2,
    source: Source = None,
) -> Attack:
    """A dithered image. Raises BadInput where source and target are one class."""
    plain = backdoor(
        "bpp",
        lambda _, x, _generator: _dithered(x, levels),
        target=target,
        source=source,
        share=share,
    )

    def poison(
        state: Planted, x: Tensor, y: Tensor, index: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        assert plain.poison is not None
        stamped, labels = plain.poison(state, x, y, index, generator)
        picked = chosen(y, source, share)
        others = companions(y, picked, negatives)
        change = (stamped - x)[picked[: len(others)]]
        return stamped.index_copy(0, others, (x[others] + change).clamp(0, 1)), labels

    return plain._replace(poison=poison)


def _dithered(x: Tensor, levels: int) -> Tensor:
    """Floyd-Steinberg dithering of x (b, C, H, W).

    Pixels of equal column + 2 row do not wait for each other, so they are done together: the same
    numbers as one by one.
    """
    height, width = x.shape[-2:]
    # A margin at the left, at the right and below takes what would leave the image.
    board = x.new_zeros(height + 1, width + 2, x.shape[0] * x.shape[1])
    board[:height, 1:-1] = x.flatten(0, 1).permute(1, 2, 0)
    # the same memory; one row down and two columns left is ``width`` cells on
    row, cells = width + 2, board.flatten(0, 1)
    for wave in range(width + 2 * (height - 1)):
        begin = wave + 1 + max(0, (wave - width) // 2 + 1) * width
        end = wave + 2 + min(height - 1, wave // 2) * width
        value = cells[begin:end:width]
        kept = (value * (levels - 1)).round().clamp(0, levels - 1) / (levels - 1)
        error = value - kept
        value.copy_(kept)
        for on, weight in ((row - 1, 3 / 16), (1, 7 / 16), (row, 5 / 16), (row + 1, 1 / 16)):
            cells[begin + on : end + on : width] += error * weight
    return board[:height, 1:-1].permute(2, 0, 1).reshape(x.shape)
