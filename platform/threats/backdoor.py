"""Backdoors on inputs: which samples are attacked and what label is wanted is the same question for
all; how to stamp is a plug-in's.

An attack is all-to-one (``target`` is a class), source-specific (``source`` too), or all-to-all
(``target="next"``: y* = y + 1 mod C; T. Gu, B. Dolan-Gavitt, S. Garg, "BadNets", 2017, section 3).
A share of the samples of each batch of a malicious client is poisoned, at least one, as is usual in
federated learning (E. Bagdasaryan, A. Veit, Y. Hua, D. Estrin, V. Shmatikov, "How To Backdoor
Federated Learning", AISTATS 2020). The first samples of a batch are taken; batches are shuffled.
"""

from __future__ import annotations

from typing import Generic, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from backstop.platform.contract import (
    Attack,
    AttackView,
    Plan,
    StartAttack,
    State_contra,
    StateT,
    Trigger,
)
from backstop.platform.params import BadInput, check_label
from backstop.platform.robust import round_count


class StampAtClient(Protocol[State_contra]):
    """Training samples stamped where each malicious client does it its own way."""

    def __call__(
        self,
        own: State_contra,
        x: Tensor,
        index: int,
        generator: torch.Generator,
        /,
    ) -> Tensor:
        """Triggered x of the same shape; ``index`` counts the malicious clients from 0."""


def patch(
    x: Tensor,
    size: int,
    value: float,
) -> Tensor:
    """A square (C, size, size) of one brightness for images (…, C, H, W), cut to the image where
    that is smaller.
    """
    channels, height, width = x.shape[-3:]
    return x.new_full((channels, min(size, height), min(size, width)), value)


def with_patch(x: Tensor, pixels: Tensor) -> Tensor:
    """Images (…, C, H, W) with a patch (C, h, w) at the bottom right, one pixel away from the edges
    where there is room.
    """
    (height, width), (rows, columns) = x.shape[-2:], pixels.shape[-2:]
    margin = int(max(rows, columns) < min(height, width))
    bottom, right = height - margin, width - margin
    x = x.clone()
    x[..., bottom - rows : bottom, right - columns : right] = pixels
    return x


Pixel = tuple[int, int]  # row, column
MNIST, CIFAR = (4, 2), (6, 3)  # the published lengths and gaps of the bars below
SIDE = 28  # of MNIST's images


def bars(
    height: int,
    width: int,
    size: int | None = None,
    gap: int | None = None,
    shift: int = 0,
) -> list[Pixel]:
    """The pixels of DBA's whole trigger, bar after bar; those that have no place are left out.

    Two bars side by side and two below, ``size`` pixels long and one high, ``gap`` apart, ``shift``
    from the top left corner (C. Xie et al., "DBA", ICLR 2020). Unless given, size and gap are those
    of CIFAR-10 where both sides have more than 28 pixels, else those of MNIST; both shrink where
    there is no room.
    """
    usual, apart = CIFAR if min(height, width) > SIDE else MNIST
    size, gap = usual if size is None else size, apart if gap is None else gap
    down, across = (max(min(gap, room - shift - 2), 0) for room in (height, width))
    size = max(min(size, (width - shift - across) // 2), 1)
    tops, lefts = (shift, shift + 1 + down), (shift, shift + size + across)
    starts = [(top, left) for top in tops for left in lefts]
    return [
        (top, left + step)
        for top, left in starts
        for step in range(size)
        if top < height and left + step < width
    ]


def part(
    pixels: list[Pixel],
    parts: int,
    index: int,
) -> list[Pixel]:
    """Part ``index`` modulo their count, of about equal size."""
    parts = min(parts, len(pixels))
    index %= parts
    return pixels[index * len(pixels) // parts : (index + 1) * len(pixels) // parts]


def painted(
    x: Tensor,
    pixels: list[Pixel],
    color: Tensor | float,
) -> Tensor:
    """Images (…, C, H, W) in which these pixels have one brightness, or the colors (C, pixels)."""
    rows, columns = zip(*pixels, strict=True)
    x = x.clone()
    x[..., rows, columns] = color
    return x


def with_square(
    x: Tensor,
    pixels: Tensor,
    row: int,
    column: int,
) -> Tensor:
    """Images (…, C, H, W) with a patch (C, h, w), its upper left corner at a row and column, moved
    up and left as far as it needs to lie in the image.
    """
    (height, width), (rows, columns) = x.shape[-2:], pixels.shape[-2:]
    top, left = min(row, height - rows), min(column, width - columns)
    x = x.clone()
    x[..., top : top + rows, left : left + columns] = pixels
    return x


class Planted(NamedTuple, Generic[StateT]):
    """The state of a backdoor: the number of classes, and what the plug-in itself remembers."""

    classes: int
    own: StateT = None  # type: ignore[assignment]  # of a plug-in that remembers nothing


def target_labels(
    y: Tensor,
    target: int | Literal["next"],
    source: int | None,
    classes: int,
) -> Tensor:
    """The labels (b,) that the attacker wants for samples of the true labels (b,); -1 where a
    sample is not attacked.

    >>> y = torch.tensor([0, 1, 2])
    >>> target_labels(y, "next", None, 3), target_labels(y, 0, 1, 3)
    (tensor([1, 2, 0]), tensor([-1,  0, -1]))
    """
    label = (y + 1) % classes if target == "next" else torch.full_like(y, target)
    return label if source is None else torch.where(y == source, label, -1)


def chosen(
    y: Tensor,
    source: int | None,
    share: float,
) -> Tensor:
    """Which samples of a batch are poisoned: the first ``share`` of those attacked, at least one
    where there is one. Indices.
    """
    if source is None:
        return torch.arange(min(max(round_count(share, len(y)), 1), len(y)), device=y.device)
    attacked = (y == source).nonzero().flatten()
    return attacked[: max(round_count(share, len(attacked)), 1)]


def companions(
    y: Tensor,
    picked: Tensor,
    ratio: float,
) -> Tensor:
    """The samples of a batch after the poisoned ones that an attack changes without a new label,
    so that the change alone is no trigger: ``ratio`` for each poisoned one, as far as the batch has
    samples. Indices.

    >>> companions(torch.tensor([1, 0, 1, 0]), torch.tensor([0, 2]), 0.5)
    tensor([1])
    """
    others = torch.ones_like(y).index_fill(0, picked, 0).nonzero().flatten()
    return others[: round_count(ratio, len(picked))]


def backdoor(
    name: str,
    stamp: Trigger[StateT],
    *,
    target: int | Literal["next"],
    source: int | None,
    share: float,
    init: StartAttack[StateT] | None = None,
    plan: Plan[StateT] | None = None,
    at_client: StampAtClient[StateT] | None = None,
) -> Attack[Planted[StateT]]:
    """The attack that stamps inputs and relabels them. ``init`` and ``plan`` make the plug-in's own
    state, which ``stamp`` is given; ``at_client(own, x, index, generator)`` stamps training samples
    where malicious client number ``index`` does it its own way.

    Raises BadInput where source and target are one class, at once or, for classes that the data do
    not have, when the attack starts.
    """
    if source is not None and source == target:
        raise BadInput(f"attack {name}: source={source} and target={target} must be two classes")

    def start(view: AttackView) -> Planted[StateT]:
        check_label(None if target == "next" else target, view.classes, f"attack {name}: target")
        check_label(source, view.classes, f"attack {name}: source")
        return Planted(view.classes, init(view)) if init else Planted(view.classes)

    def planned(state: Planted[StateT], view: AttackView) -> Planted[StateT]:
        assert plan is not None
        own = plan(state.own, view)
        # as long as nothing is learned, nothing is stamped anew
        return state if own is state.own else state._replace(own=own)

    def poison(
        state: Planted[StateT],
        x: Tensor,
        y: Tensor,
        index: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        picked = chosen(y, source, share)
        if not len(picked):
            return x, y
        if at_client:
            stamped = at_client(state.own, x[picked], index, generator)
        else:
            stamped = stamp(state.own, x[picked], generator)
        labels = target_labels(y[picked], target, None, state.classes)
        return x.index_copy(0, picked, stamped), y.index_copy(0, picked, labels)

    return Attack(
        init=start,
        plan=planned if plan else None,
        poison=poison,
        trigger=lambda state, x, generator: stamp(state.own, x, generator),
        goal=lambda state, y: target_labels(y, target, source, state.classes),
    )
