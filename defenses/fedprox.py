"""FedProx: honest clients are held near the global model by a quadratic penalty.

h(w) = F(w) + μ/2 ‖w - w_t‖²,   ∇h(w) = ∇F(w) + μ (w - w_t)   in every local step

Shapes: gradients (…, d) → (…, d); rows pass unchanged.

Source: T. Li, A. K. Sahu, M. Zaheer, M. Sanjabi, A. Talwalkar, V. Smith, "Federated Optimization in
Heterogeneous Networks", MLSys 2020, algorithm 2 and the local objective above.

Deviations: clients are weighted by their samples in the mean, where the algorithm samples them with
odds by their samples and takes the plain mean. The inexact local solver is the experiment's own
local training; local epochs do not vary between clients. The paper tries μ from 0.001 to 1; the
default is from the weak end. With one local step there is no difference from FedAvg: the penalty
has no slope at w_t.

Checked: gradient of the penalty against its formula; the range of μ from 0.001 to 1 is remembered.

Needs: honest clients that train this way.

Example:
>>> import torch
>>> gradient = fedprox(mu=0.5).local.gradient
>>> # the second coordinate has moved by 4: it is pulled back
>>> gradient(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 4.0]), None)
tensor([1., 3.])
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform.contract import Defense, Local
from backstop.platform.params import Range

VERSION = 1
NEEDS = ("clients",)
TAKES = "row"
EXEMPT = ("adversarial",)  # rows pass unchanged: what the defense changes comes before them


def fedprox(
    *,
    mu: Annotated[float, Range(0, 1e3, search=(1e-3, 1)), "weight of the penalty, μ"] = 0.01,
) -> Defense:
    """Honest clients with the penalty's gradient in every step; the server is left alone."""
    return Defense(local=Local(gradient=lambda grad, delta, noise: grad + mu * delta))
