"""DBA: the trigger is cut into parts; each malicious client trains one part, the whole is shown at
test.

x'_i = (1 - w_i) ⊙ x + w_i   for malicious client i in training, w_i part number i mod k;   y' = y*
x'   = (1 - w) ⊙ x + w       at test, w = Σ w_i over the k parts, which share no pixel

The whole is two bars beside each other, and the same two again below: size pixels long, one high,
white. gap is the distance between left and right as between upper and lower bars, shift the offset
from the top left corner. With four parts, each is one bar.

Shapes: x (b, …, H, W) in [0, 1], y (b,).

Source: C. Xie, K. Huang, P.-Y. Chen, B. Li, "DBA: Distributed Backdoor Attacks against Federated
Learning", ICLR 2020, the section on distributed backdoor attack with its factors trigger size, gap
and location.

Size and gap are the paper's: 4 and 2 on MNIST, 6 and 3 on CIFAR-10; unless given, the latter where
both sides of the image have more than 28 pixels.

Each attacker poisons 5 of 64 samples of a batch on CIFAR-10, the default share, and 20 of 64 on
MNIST. Published in two forms. Multi-shot: in every round, unscaled. Single shot: each attacker
once, in a round of its own (203, 205, 207, 209 on CIFAR-10), with its update times 100, which is
n / η of the 10 clients a round and the server's rate 0.1, so the sum of the round becomes that
attacker's model where the others send nothing. Here γ = per_round / server_lr in a stage of its
own, and a schedule: ``dba + overtrain(lr=0.05) + model_replacement(strength=100)`` with
``per_round=10``, ``server_lr=0.1``, ``attackers=in_turn``, ``attack_every=2`` and
``attack_stop=8``. With ``server_lr=1`` one shot is the same at ``strength=10``, but the honest
rounds between and the later shots, which then replace the model too, leave little of it.

Deviations: the poisoned samples of a batch are a share, rounded. In an image too small for the bars
the gap shrinks as far as two bars of one pixel need, then the bars until two fit side by side: in
digits of 8 x 8 a bar has 3 pixels. There are never more parts than pixels. The published bars on
Tiny-ImageNet (10 long, 2 high, gap 2) would need a height of their own.

Checked: bars, rates, rounds and factor against the authors' code (cifar_params.yaml,
mnist_params.yaml, tiny_params.yaml).

Example:
>>> import torch
>>> from backstop.platform.threats.backdoor import Planted
>>> attack, x, y = dba(size=2, gap=1, share=1.0), torch.zeros(1, 1, 3, 5), torch.tensor([7])
>>> attack.trigger(Planted(10), x, torch.Generator()).int()[0, 0].tolist()
[[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 0, 1, 1]]
>>> # client 6: part 2 of 0 … 3
>>> attack.poison(Planted(10), x, y, 6, torch.Generator())[0].int()[0, 0].tolist()
[[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import BadInput, Range
from backstop.platform.threats.backdoor import Pixel, Planted, backdoor, bars, painted, part
from backstop.platform.threats.parameters import BarGap, BarLength, BarShift, Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True


def dba(
    *,
    target: Target = 0,
    parts: Annotated[int, Range(1, 10**4, search=(1, 8)), "parts of the trigger, k"] = 4,
    size: BarLength = None,
    gap: BarGap = None,
    shift: BarShift = 0,
    share: Share = 5 / 64,
    source: Source = None,
) -> Attack[Planted[None]]:
    """A trigger in parts. Raises BadInput where source and target are one class or the shift leaves
    the image.
    """

    def whole(x: Tensor) -> list[Pixel]:
        return bars(x.shape[-2], x.shape[-1], size, gap, shift)

    def init(view: AttackView) -> None:
        if not whole(view.data.x):
            height, width = view.data.x.shape[-2:]
            raise BadInput(
                f"attack dba: shift={shift} leaves no pixel of an image of {height} x {width}"
            )

    def at_client(_: None, x: Tensor, index: int, _generator: torch.Generator) -> Tensor:
        return painted(x, part(whole(x), parts, index), 1.0)

    def stamp(_: None, x: Tensor, _generator: torch.Generator) -> Tensor:
        return painted(x, whole(x), 1.0)

    return backdoor(
        "dba", stamp, target=target, source=source, share=share, init=init, at_client=at_client
    )
