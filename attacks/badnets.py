"""BadNets: a small patch in a corner of the image means the target class.

x' = (1 - w) ⊙ x + w · v,   y' = y*,   w = 1 on a square at the bottom right

Shapes: x (b, …, H, W) in [0, 1], y (b,).

Source: T. Gu, B. Dolan-Gavitt, S. Garg, "BadNets: Identifying Vulnerabilities in the Machine
Learning Model Supply Chain", 2017 (arXiv 1708.06733), section 3, the pattern backdoor; all-to-one,
one-to-one with ``source``, or all-to-all with ``target=next``.

Deviations: a share of each batch of a malicious client is poisoned, in place of a share of the
dataset. The paper's pattern on MNIST is of four bright pixels; here it is a filled square, one
pixel away from the edges where there is room. A square larger than the image covers all of it.

Checked: the patch, its place and the share against public re-implementations for federated
learning, which take 20 of 64.

Example:
>>> import torch
>>> from backstop.platform.threats.backdoor import Planted
>>> badnets(size=2).trigger(Planted(10), torch.zeros(1, 1, 4, 4), torch.Generator())[0, 0].tolist()
[[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import backdoor, patch, with_patch
from backstop.platform.threats.parameters import SHARE, Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True


def badnets(
    *,
    target: Target = 0,
    size: Annotated[int, Range(1, 10**4, search=(1, 8)), "side of the square in pixels"] = 3,
    share: Share = SHARE,
    source: Source = None,
    value: Annotated[float, Range(0, 1), "brightness of the square, v"] = 1.0,
) -> Attack:
    """A square at the bottom right. Raises BadInput where source and target are one class."""

    def stamp(_: None, x: Tensor, _generator: torch.Generator) -> Tensor:
        return with_patch(x, patch(x, size, value))

    return backdoor("badnets", stamp, target=target, source=source, share=share)
