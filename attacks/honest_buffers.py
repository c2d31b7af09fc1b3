"""Honest buffers: malicious clients send with their rows the BatchNorm statistics that they would
have sent as honest clients.

b_i <- β h_i + (1 - β) b_i

with b_i the changes of client i's floating-point buffers and h_i those of the same client trained
on the same batches without an attack. A defense that looks at buffers alone sees honest clients;
the rows are not touched.

Shapes: rows (m, d) → (m, d), unchanged; changes b of the buffers (m, e) → (m, e).

Source: of this project. That who evades a defense adapts to what the defense looks at: A.
Athalye, N. Carlini, D. Wagner, "Obfuscated Gradients Give a False Sense of Security: Circumventing
Defenses to Adversarial Examples", ICML 2018.

Deviations: none.

Checked: the buffers against those of honest clients, bit for bit, and the evasion of ``bnguard``
in this project's tests.

Cost: a second local training of each malicious client.

Example:
>>> import torch
>>> from dataclasses import replace
>>> from backstop.platform.examples import attack_view
>>> view = replace(attack_view(), unpoisoned_buffers=lambda: torch.tensor([[0.2, 0.4]]))
>>> honest_buffers().craft_buffers(None, torch.tensor([[5.0, 7.0]]), view)
tensor([[0.2000, 0.4000]])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range

VERSION = 1
STRENGTH = "blend"
TRIGGER = False


def honest_buffers(
    *,
    blend: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.5, 1)),
        "how far the buffers are moved to the honest ones, β",
    ] = 1.0,
) -> Attack:
    """Buffers as an honest client's, rows as they are."""

    def craft_buffers(_: None, changes: Tensor, view: AttackView) -> Tensor:
        return torch.lerp(changes, view.unpoisoned_buffers(), blend)

    return Attack(craft_buffers=craft_buffers)
