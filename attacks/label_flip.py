"""Label flipping: samples of one class are trained as another; the inputs stay as they are.

(x, y) -> (x, y*)  for y = source

Shapes: x (b, …), y (b,).

Source: V. Tolpegin, S. Truex, M. E. Gursoy, L. Liu, "Data Poisoning Attacks Against Federated
Learning Systems", ESORICS 2020, section 3, label flipping attack.

Deviations: none with ``share=1``; with less, only the first samples of the source class in each
batch are flipped, at least one. Success is the share of the source class that the model takes for
the target, on clean inputs.

Checked: the relabeling against public re-implementations; the paper's pairs of classes are
remembered.

Example:
>>> import torch
>>> label_flip(source=1, target=0).poison(
...     None, torch.zeros(3, 2), torch.tensor([0, 1, 2]), 0, torch.Generator()
... )[1].tolist()
[0, 0, 2]
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import BadInput, Range, check_label
from backstop.platform.robust import round_count

VERSION = 1
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True


def label_flip(
    *,
    source: Annotated[int, Range(0, 10**6), "class whose samples are flipped"] = 1,
    target: Annotated[int, Range(0, 10**6), "label that they get, y*"] = 0,
    share: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.05, 1)),
        "share of a batch's source samples that is flipped",
    ] = 1.0,
) -> Attack[None]:
    """Another label for one class. Raises BadInput where source and target are one class."""
    if source == target:
        raise BadInput(
            f"attack label_flip: source={source} and target={target} must be two classes"
        )

    def init(view: AttackView) -> None:
        check_label(source, view.classes, "attack label_flip: source")
        check_label(target, view.classes, "attack label_flip: target")

    def poison(
        _: None, x: Tensor, y: Tensor, _index: int, _generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        attacked = (y == source).nonzero().flatten()
        return x, y.index_fill(0, attacked[: max(round_count(share, len(attacked)), 1)], target)

    return Attack(init=init, poison=poison, goal=lambda _, y: torch.where(y == source, target, -1))
