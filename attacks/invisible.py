"""Inspired by invisible sample-specific triggers: a small change that an encoder makes anew for
every image means the target class.

x' = clip(x + ε E(x, s), 0, 1),   E(x, s) = tanh(W₂ ∗ tanh(W₁ ∗ [2 x - 1; s])),   y' = y*

where s is the secret message, one bit, -1 or 1, for each pixel, and W₁ and W₂ are convolutions of 7
x 7 pixels, with 16 channels between.

Shapes: x (b, C, H, W) in [0, 1], y (b,); E(x, s) (b, C, H, W) in [-1, 1].

Source: Y. Li, Y. Li, B. Wu, L. Li, R. He, S. Lyu, "Invisible Backdoor Attack with Sample-Specific
Triggers", ICCV 2021, the section on the generation of sample-specific triggers.

Deviations: the paper trains its encoder, a U-Net, together with a decoder that reads the message
back, on images of its own, and bounds the change by a loss. Here the encoder is not trained: two
convolutions with normal weights of variance 16 / inputs, drawn once with the message, and ε bounds
the change of every value; no decoder vouches for the message. Each image is changed in its own way,
but the changes have a part in common: half of their energy on CIFAR-10, 0.6 on the digits, whose
background is alike. The default ε is 13 of 255 gray values, a PSNR of about 27 dB, and weak on 8 x
8 pixels. A share of each batch is poisoned, by default 20 of 64, the usual one in federated
learning, in place of a share of the dataset.

Checked: only that the change is of each image's own and bounded; without the authors' trained
encoder it is a trigger of their kind, not theirs.

Example: no value moves by more than ε, and two images are not changed alike
>>> import torch
>>> draws = torch.Generator().manual_seed(0)
>>> encoder = _drawn(1, 4, 4, draws)
>>> change = _encoded(encoder, torch.rand(2, 1, 4, 4, generator=draws))
>>> change.shape, bool((change.abs() <= 1).all()), bool((change[0] - change[1]).abs().max() > 0.5)
(torch.Size([2, 1, 4, 4]), True, True)
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor
from backstop.platform.threats.parameters import SHARE, Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "epsilon"
TRIGGER = True
HIDDEN, SIDE = 16, 7


class _Encoder(NamedTuple):
    message: Tensor  # (1, H, W)
    first: Tensor  # (16, C + 1, 7, 7)
    second: Tensor  # (C, 16, 7, 7)


def invisible(
    *,
    target: Target = 0,
    epsilon: Annotated[
        float, Range(0, 1, low_open=True, search=(0.01, 0.3)), "largest change of a value, ε"
    ] = 0.05,
    share: Share = SHARE,
    source: Source = None,
) -> Attack[Planted[_Encoder]]:
    """A change of each image's own. The state is the encoder. Raises BadInput where source and
    target are one class.
    """

    def init(view: AttackView) -> _Encoder:
        channels, height, width = view.data.x.shape[1:]
        return _drawn(channels, height, width, view.generator)

    def stamp(encoder: _Encoder, x: Tensor, _generator: torch.Generator) -> Tensor:
        return (x + epsilon * _encoded(encoder, x)).clamp(0, 1)

    return backdoor("invisible", stamp, target=target, source=source, share=share, init=init)


def _drawn(channels: int, height: int, width: int, generator: torch.Generator) -> _Encoder:
    message = torch.randint(2, (1, height, width), generator=generator) * 2.0 - 1
    first = torch.randn(HIDDEN, channels + 1, SIDE, SIDE, generator=generator)
    second = torch.randn(channels, HIDDEN, SIDE, SIDE, generator=generator)
    return _Encoder(message, *(4 * weight / weight[0].numel() ** 0.5 for weight in (first, second)))


def _encoded(encoder: _Encoder, x: Tensor) -> Tensor:
    message, first, second = (part.to(x) for part in encoder)
    seen = torch.cat([2 * x - 1, message.expand(len(x), -1, -1, -1)], 1)
    return torch.tanh(
        conv2d(torch.tanh(conv2d(seen, first, padding="same")), second, padding="same")
    )
