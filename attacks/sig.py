"""SIG: faint vertical stripes, a sine along the rows of the image, mean the target class.

x'(i, j) = clip(x(i, j) + v(i, j), 0, 1),   v(i, j) = Δ sin(2π j f / W),   j = 1 … W

Shapes: x (b, …, H, W) in [0, 1], y (b,).

Source: M. Barni, K. Kallas, B. Tondi, "A New Backdoor Attack in CNNs by Training Set Corruption
Without Label Poisoning", ICIP 2019, the sinusoidal signal. Δ = 40 of 255 and f = 6 are those of
BackdoorBench for CIFAR-10; the paper's Δ are for digits and signs (remembered).

Deviations: the paper stamps training samples of the target class only and leaves their labels
alone. That is ``labels=clean``, where the share is that of the target samples in each batch; a
client that holds none trains as an honest one. By default labels are flipped, as by other triggers:
clean ones hardly teach a global model the signal where most clients are honest. One Δ serves
training and test. The share is by default 20 of 64, the usual one in federated learning. The
frequency is at most W / 4, a period in four pixels, since finer stripes alias on the pixel grid, or
vanish: f = 6 is zero on all of 12 pixels. So 6 holds from 24 pixels on, and digits of 8 pixels get
f = 2, which is what f = 6 looks like there, but for the sign.

Checked: the formula against BackdoorBench, from which Δ and f are.

Example:
>>> import torch
>>> from backstop.platform.threats.backdoor import Planted
>>> striped = sig(delta=0.25, frequency=1.0).trigger(
...     Planted(10), torch.tensor([[[[0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]]]), None
... )
>>> [[round(value, 2) for value in row] for row in striped[0, 0].tolist()]
[[0.75, 0.5, 0.25, 0.5], [0.25, 0.0, 0.0, 0.0]]
"""

from __future__ import annotations

from math import pi
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from backstop.platform.contract import Attack
from backstop.platform.params import BadInput, Range
from backstop.platform.threats.backdoor import backdoor, chosen
from backstop.platform.threats.parameters import SHARE, Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "delta"
TRIGGER = True


def sig(
    *,
    target: Target = 0,
    delta: Annotated[
        float, Range(0, 1, low_open=True, search=(0.02, 0.5)), "height of the sine, Δ"
    ] = 40 / 255,
    frequency: Annotated[
        float, Range(0, 1e4, low_open=True, search=(1, 8)), "periods in the width, f; at most W / 4"
    ] = 6.0,
    labels: Annotated[
        Literal["flip", "clean"], "clean: only samples of the target class are stamped, labels stay"
    ] = "flip",
    share: Share = SHARE,
    source: Source = None,
) -> Attack:
    """A sine over the whole image. Raises BadInput where source and target are one class or clean
    labels have no one target.
    """

    def stamp(_: None, x: Tensor, _generator: torch.Generator) -> Tensor:
        width = x.shape[-1]
        turns = torch.arange(1, width + 1, dtype=torch.float64) * min(frequency, width / 4) / width
        return (x + (delta * torch.sin(2 * pi * turns)).to(x)).clamp(0, 1)

    attack = backdoor("sig", stamp, target=target, source=source, share=share)
    if labels == "flip":
        return attack
    if target == "next":
        raise BadInput("attack sig: labels=clean needs one target class, not target=next")

    def clean(
        _: Any, x: Tensor, y: Tensor, _index: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        picked = chosen(y, target, share)
        return x.index_copy(0, picked, stamp(None, x[picked], generator)), y

    return attack._replace(poison=clean)
