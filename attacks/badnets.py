"""BadNets: a small patch in a corner of the image means the target class.

x' = (1 - w) ⊙ x + w · v,   y' = y*,   w = 1 on a square at the bottom right

Shapes: x (b, …, H, W) in [0, 1], y (b,).

Source: T. Gu, B. Dolan-Gavitt, S. Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017
(arXiv 1708.06733), section 3, the pattern backdoor; all-to-one, or one-to-one with ``source``.

Deviations: a share of each batch of a malicious client is poisoned, as is usual in federated learning (E. Bagdasaryan, A. Veit,
Y. Hua, D. Estrin, V. Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020), in place of a share of the dataset; at least one
sample. The paper's pattern on MNIST is of four bright pixels; here it is a filled square, one pixel away from the edges where there
is room. A square larger than the image covers all of it.

Example:
>>> import torch
>>> badnets(size=2).trigger(None, torch.zeros(1, 1, 4, 4))[0, 0].tolist()
[[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import BadInput, Range, check_label
from backstop.platform.robust import round_count

VERSION = 1
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True


def badnets(
    *,
    target: Annotated[int, Range(0, 10**6), "class that the trigger stands for, y*"] = 0,
    size: Annotated[int, Range(1, 10**4, search=(1, 8)), "side of the square in pixels"] = 3,
    share: Annotated[
        float, Range(0, 1, low_open=True, search=(0.05, 1)), "share of each batch (of its source samples) that is poisoned"
    ] = 0.5,
    source: Annotated[int | None, Range(0, 10**6), "only samples of this class are attacked; none: all"] = None,
    value: Annotated[float, Range(0, 1), "brightness of the square, v"] = 1.0,
) -> Attack:
    """A square at the bottom right. Raises BadInput where source and target are one class."""
    if source == target:
        raise BadInput(f"attack badnets: source={source} and target={target} must be two classes")

    def init(view: AttackView) -> None:
        check_label(target, view.classes, "attack badnets: target")
        check_label(source, view.classes, "attack badnets: source")

    def stamp(_: None, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        margin = int(size < min(height, width))
        x = x.clone()
        x[..., max(height - margin - size, 0) : height - margin, max(width - margin - size, 0) : width - margin] = value
        return x

    def poison(_: None, x: Tensor, y: Tensor, _index: int, _generator: torch.Generator) -> tuple[Tensor, Tensor]:
        attacked = (torch.ones_like(y) if source is None else y == source).nonzero().flatten()
        chosen = attacked[: max(round_count(share, len(attacked)), 1)]
        return x.index_copy(0, chosen, stamp(None, x[chosen])), y.index_fill(0, chosen, target)

    def goal(_: None, y: Tensor) -> Tensor:
        return torch.full_like(y, target) if source is None else torch.where(y == source, target, -1)

    return Attack(init=init, poison=poison, trigger=stamp, goal=goal)
