"""Blended injection: a faint noise image laid over the whole input means the target class.

x' = (1 - α) · x + α · t,   y' = y*

Shapes: x (b, C, H, W) in [0, 1], t (C, H, W) in [0, 1], y (b,).

Source: X. Chen, C. Liu, B. Li, K. Lu, D. Song, "Targeted Backdoor Attacks on Deep Learning Systems
Using Data Poisoning", 2017 (arXiv 1712.05526), the blended injection strategy with the random
pattern.

Deviations: a share of each batch of a malicious client is poisoned, by default 20 of 64, the usual
one in federated learning, in place of a few samples added to the dataset. One α serves training
and test. The pattern t has a uniform draw for each channel of each pixel, one pattern for all
malicious clients.

Checked: the mixture against BackdoorBench, whose α is 0.2.

Example:
>>> import torch
>>> from backstop.platform.threats.backdoor import Planted
>>> t = torch.tensor([[[0.0, 1.0]]])
>>> blended(alpha=0.25).trigger(
...     Planted(10, t), torch.tensor([[[[0.5, 1.0]]], [[[0.0, 0.0]]]]), torch.Generator()
... ).tolist()
[[[[0.375, 1.0]]], [[[0.0, 0.25]]]]
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor
from backstop.platform.threats.parameters import SHARE, Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "alpha"
TRIGGER = True


def blended(
    *,
    target: Target = 0,
    alpha: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.02, 0.5)),
        "weight of the pattern in the image, α",
    ] = 0.2,
    share: Share = SHARE,
    source: Source = None,
) -> Attack[Planted[Tensor]]:
    """A noise image over the whole input; it is the state. Raises BadInput where source and target
    are one class.
    """

    def init(view: AttackView) -> Tensor:
        x = view.data.x  # it has its shape even where there is no sample
        return torch.rand(x.shape[1:], generator=view.generator).to(x.device)

    def stamp(pattern: Tensor, x: Tensor, _generator: torch.Generator) -> Tensor:
        return (1 - alpha) * x + alpha * pattern.to(x)

    return backdoor("blended", stamp, target=target, source=source, share=share, init=init)
