"""FCBA: the trigger is cut into parts; each malicious client trains a combination of parts of its
own, from a single one to all but one, and the whole is shown at test.

x'_i = (1 - w_i) ⊙ x + w_i,  w_i = Σ_{p ∈ S_i} w_p   for malicious client i in training;   y' = y*
x'   = (1 - w) ⊙ x + w,      w = Σ_p w_p             at test
S_i = number i mod 2^k - 2 of the proper combinations of the k parts: ∅ ≠ S ≠ {1 … k}

The whole is that of ``dba``: two white bars beside each other, and the same two again below. With
four parts each is one bar, and there are 14 combinations: 4 of one bar, 6 of two, 4 of three.

Shapes: x (b, …, H, W) in [0, 1], y (b,).

Source: T. Liu, Y. Zhang, Z. Feng, Z. Yang, C. Xu, D. Man, W. Yang, "Beyond Traditional Threats: A
Persistent Backdoor Attack on Federated Learning", AAAI 2024, the full combination backdoor attack.

As published on CIFAR-10: four bars of 6 pixels, 3 apart, at the top left; 2 of 64 samples of a
batch; 14 attackers, each once in a round of its own, with its update times 100 at the server's rate
0.1: ``fcba+overtrain(epochs=6, lr=0.05)+model_replacement(strength=100)`` with ``per_round=10``,
``server_lr=0.1``, ``attackers=in_turn``, ``attack_every=2`` and ``attack_stop=28``. With fewer
malicious clients only the first combinations are trained, the single bars before all others.

Deviations: the poisoned samples of a batch are a share, rounded, at least one. The authors' rate
falls after 3 and 5 of its 6 epochs; ``overtrain`` keeps it. In an image too small for the bars they
shrink as those of ``dba``, and a trigger of one pixel, which has no parts, is painted whole.

Checked: bars, combinations and their order over the clients, rates, rounds and factor against the
authors' code (image_helper.py: add_pixel_pattern; cifar_params.yaml).

Reproduced: it outlasts ``dba`` (tests/attacks/test_fcba.py). Where few clients are malicious and
only single bars are trained, it is ``dba``.

Example: what client 4 paints of four parts, each one pixel here, is parts 0 and 1.
>>> import torch
>>> from backstop.platform.threats.backdoor import Planted
>>> attack, x, y = fcba(size=1, gap=0, share=1.0), torch.zeros(1, 1, 2, 2), torch.tensor([7])
>>> attack.poison(Planted(10), x, y, 4, torch.Generator())[0].int()[0, 0].tolist()
[[1, 1], [0, 0]]
>>> attack.trigger(Planted(10), x, torch.Generator()).int()[0, 0].tolist()
[[1, 1], [1, 1]]
"""

from __future__ import annotations

from itertools import combinations
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import BadInput, Range
from backstop.platform.threats.backdoor import Pixel, Planted, backdoor, bars, painted, part
from backstop.platform.threats.parameters import BarGap, BarLength, BarShift, Share, Source, Target

VERSION = 1
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True


def _proper(parts: int) -> list[tuple[int, ...]]:
    """All combinations of some of the parts, the smaller ones first; of one size, each is followed
    by those that it becomes when the parts are counted from the next one on.

    >>> _proper(3)
    [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)]
    """
    found = [
        tuple(sorted((number + turn) % parts for number in first))
        for size in range(1, parts)
        for first in combinations(range(parts), size)
        for turn in range(parts)
    ]
    return list(dict.fromkeys(found))


def fcba(
    *,
    target: Target = 0,
    parts: Annotated[int, Range(2, 10, search=(2, 5)), "parts of the trigger, k"] = 4,
    size: BarLength = None,
    gap: BarGap = None,
    shift: BarShift = 0,
    share: Share = 2 / 64,
    source: Source = None,
) -> Attack[Planted[None]]:
    """A trigger in combinations of its parts. Raises BadInput where source and target are one class
    or the shift leaves the image.
    """

    def whole(x: Tensor) -> list[Pixel]:
        return bars(x.shape[-2], x.shape[-1], size, gap, shift)

    def init(view: AttackView) -> None:
        if not whole(view.data.x):
            height, width = view.data.x.shape[-2:]
            raise BadInput(
                f"attack fcba: shift={shift} leaves no pixel of an image of {height} x {width}"
            )

    def at_client(_: None, x: Tensor, index: int, _generator: torch.Generator) -> Tensor:
        pixels = whole(x)
        count = min(parts, len(pixels))
        sets = _proper(count) or [(0,)]
        own = [part(pixels, count, number) for number in sets[index % len(sets)]]
        return painted(x, [pixel for piece in own for pixel in piece], 1.0)

    def stamp(_: None, x: Tensor, _generator: torch.Generator) -> Tensor:
        return painted(x, whole(x), 1.0)

    return backdoor(
        "fcba", stamp, target=target, source=source, share=share, init=init, at_client=at_client
    )
