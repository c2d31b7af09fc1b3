"""Local differential privacy: honest clients clip the gradient of every step and add noise to it.

g <- g · min(1, c / ‖g‖₂) + z · c · ξ,   ξ ~ N(0, I)   in every local step

Shapes: gradients (…, d) → (…, d), clipped each by its own norm; rows pass unchanged.

Source: M. Naseri, J. Hayes, E. De Cristofaro, "Local and Central Differential Privacy for
Robustness and Privacy in Federated Learning", NDSS 2022, local differential privacy; its clients
train by the method of M. Abadi, A. Chu, I. Goodfellow, H. B. McMahan, I. Mironov, K. Talwar, L.
Zhang, "Deep Learning with Differential Privacy", CCS 2016, algorithm 1.

Deviations: the gradient of a batch is clipped, not that of each sample, and the noise is not
divided by the batch's size: it is z · c in each coordinate of a step, where algorithm 1 has a noise
multiplier over the b samples of a batch. The default z = 0.01 is a multiplier of 0.64 there with
batches of 64. So no (ε, δ) follows for a sample by the usual accounting, and none is reported: what
is tested is the effect on accuracy and backdoors. Another common definition gives the noise's
standard deviation by itself, independent of c. Clients that attack do not follow it. A useful c and
z belong to model and learning rate: the noise of a step is about z · c · √d long.

Needs: honest clients that train this way.

Checked: how the noise is scaled, against algorithm 1 (remembered); the paper's own code was not at
hand.

Example:
>>> import torch
>>> gradient = local_dp(clip=1.0, noise=0.1).local.gradient
>>> gradient(torch.tensor([3.0, 4.0]), None, lambda: torch.tensor([1.0, -1.0]))
tensor([0.7000, 0.7000])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, Local
from backstop.platform.params import Range

VERSION = 1
NEEDS = ("clients",)
TAKES = "row"
EXEMPT = ("adversarial",)  # rows pass unchanged: what the defense changes comes before them


def local_dp(
    *,
    clip: Annotated[
        float, Range(1e-6, 1e6, log=True, search=(0.1, 10)), "largest norm of a step's gradient, c"
    ] = 1.0,
    noise: Annotated[
        float,
        Range(0, 1e3, search=(1e-3, 0.1)),
        "standard deviation of the noise of a step, as a multiple of the clip, z",
    ] = 0.01,
) -> Defense:
    """Honest clients with clipped and noisy steps; the server is left alone."""

    def gradient(grad: Tensor, _: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        clipped = robust.clip(grad.reshape(-1, grad.shape[-1]), clip).view_as(grad)
        return clipped + draw() * (noise * clip)

    return Defense(local=Local(gradient=gradient))
