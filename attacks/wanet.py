"""WaNet: a smooth warp of the image, hardly visible, means the target class.

x'(p) = x(φ(p + s P(p) / 2)),   P = ↑(ψ(rand_[-1,1](k, k, 2))),   ψ(A) = A / mean|A|,   y' = y*
noise mode, with the true label: the same with s P(p) + rand_[-1,1](H, W, 2) in place of s P(p)

where p are pixels, ↑ is bicubic upsampling to the image's size, φ keeps places within the image,
and x is read bilinearly.

Shapes: x (b, C, H, W) in [0, 1], y (b,).

Source: T. A. Nguyen, A. T. Tran, "WaNet - Imperceptible Warping-based Backdoor Attack", ICLR 2021,
the sections on the warping field generation and on the running modes; k = 4, s = 0.5 and, of each
batch, 0.1 poisoned, 0.2 noisy and 0.7 clean are the authors' settings.

Deviations: the paper's code measures the field on coordinates from -1 to 1 over the image's height,
so that s = 1 is half a pixel up to a factor (H - 1) / H; here it is half a pixel of either axis,
whatever the image's size and shape. The samples after the poisoned ones are the noisy ones, as many
as there are. The default warp, a quarter of a pixel on average, is too little for 8 x 8 pixels; a
strength of 4 bites there. The authors' figures count samples of the target class as successes; ours
leave them out.

Checked: against the authors' code (train.py, config.py): field, both modes, shares.

Example: each pixel shows what is 2 half pixels to the right and 2 down of it, but nothing beyond
the border
>>> import torch
>>> _warp(torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]]), torch.full((1, 2, 2, 2), 2.0))
tensor([[[[0.4000, 0.4000],
          [0.4000, 0.4000]]]])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor, chosen, companions
from backstop.platform.threats.parameters import Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "strength"
TRIGGER = True


def wanet(
    *,
    target: Target = 0,
    strength: Annotated[
        float, Range(0, 100, low_open=True, search=(0.25, 4)), "size of the warp in half pixels, s"
    ] = 0.5,
    grid: Annotated[
        int, Range(1, 256, search=(2, 8)), "control points along each side of the field, k"
    ] = 4,
    noise: Annotated[
        float,
        Range(0, 100, search=(0, 2)),
        "noisily warped samples with true labels for each poisoned one",
    ] = 2.0,
    share: Share = 0.1,
    source: Source = None,
) -> Attack[Planted[Tensor]]:
    """A warped image. The state is the field at its control points. Raises BadInput where source
    and target are one class.
    """

    def init(view: AttackView) -> Tensor:
        control = torch.rand(1, 2, grid, grid, generator=view.generator) * 2 - 1
        return control / control.abs().mean()

    def field(control: Tensor, x: Tensor) -> Tensor:
        return strength * interpolate(
            control.to(x), size=x.shape[-2:], mode="bicubic", align_corners=True
        )

    plain = backdoor(
        "wanet",
        lambda control, x, _: _warp(x, field(control, x)),
        target=target,
        source=source,
        share=share,
        init=init,
    )

    def poison(
        state: Planted[Tensor], x: Tensor, y: Tensor, index: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        assert plain.poison is not None
        warped, labels = plain.poison(state, x, y, index, generator)
        others = companions(y, chosen(y, source, share), noise)
        rough = torch.rand(len(others), 2, *x.shape[-2:], generator=generator).to(x) * 2 - 1
        noisy = _warp(x[others], field(state.own, x) + rough)
        return warped.index_copy(0, others, noisy), labels

    return plain._replace(poison=poison)


def _warp(x: Tensor, shift: Tensor) -> Tensor:
    """Images x (b, C, H, W) read at places that are shifted by ``shift`` (b or 1, 2, H, W), to the
    right and down, in half pixels.
    """
    height, width = x.shape[-2:]
    across = torch.arange(width).to(x) + shift[:, 0] / 2
    down = torch.arange(height).to(x)[:, None] + shift[:, 1] / 2
    # -1 and 1 are the outer edges of the image
    places = torch.stack([(2 * across + 1) / width - 1, (2 * down + 1) / height - 1], -1)
    read = grid_sample(
        x, places.expand(len(x), -1, -1, -1), padding_mode="border", align_corners=False
    )
    return read.clamp(0, 1)  # of rounding
