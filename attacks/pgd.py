"""PGD: malicious clients stay within a ball around the global model while they train.

L <- G + (L - G) · min(1, ε / ‖L - G‖₂)  after every k-th local step and at the end

Shapes: delta = L - G (d,) or (k, d); rows (m, d) → (m, d).

Source: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S. Agarwal, J. Sohn, K. Lee, D.
Papailiopoulos, "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS
2020, the PGD attack; followed by ``model_replacement`` it is their PGD attack with model
replacement.

Deviations: the rows to be sent are projected once more, as the last local step need not be a k-th
one. The default of ε suits the small models: about the norm of an honest update. Poisoned data are
a stage of their own.

Checked: the projection against the authors' code (OOD_Federated_Learning), which projects after a
step and once more at the end.

Example:
>>> import torch
>>> attack, delta = pgd(radius=1.0, every=2), torch.tensor([3.0, 4.0])
>>> attack.constrain(None, delta, 1), attack.constrain(None, delta, 2)
(tensor([3., 4.]), tensor([0.6000, 0.8000]))
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from backstop.platform.contract import Attack
from backstop.platform.params import Range
from backstop.platform.robust import clip

VERSION = 1
KNOWS = "own"
STRENGTH = "radius"
TRIGGER = False


def pgd(
    *,
    radius: Annotated[
        float, Range(0, 1e6, low_open=True, log=True, search=(0.05, 10)), "radius of the ball, ε"
    ] = 1.0,
    every: Annotated[
        int, Range(1, 10**6, search=(1, 10)), "local steps from one projection to the next, k"
    ] = 1,
) -> Attack:
    """Local training with projections onto a ball."""

    def project(_: None, delta: Tensor, step: int) -> Tensor:
        if step % every:
            return delta
        return clip(delta.reshape(-1, delta.shape[-1]), radius).view_as(delta)

    return Attack(constrain=project, craft=lambda _, rows, view: clip(rows, radius))
