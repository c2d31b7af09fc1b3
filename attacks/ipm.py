"""Inner product manipulation: malicious clients send the honest mean turned round.

u_i <- -ε μ,   μ = mean of the honest updates

Shapes: rows (m, d) → (m, d), all alike; honest (n - m, d).

Source: C. Xie, O. Koyejo, I. Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner
Product Manipulation", UAI 2019, the attacks on the median and on Krum.

Deviations: the mean honest update stands in place of the mean honest gradient. Krum and the median
are led astray by a small ε, which keeps the rows near the honest ones, hence the default; the plain
average of all rows points away from μ only where ε > (n - m) / m. Where no honest client takes
part, μ is the mean of the malicious clients' own rows.

Checked: the formula against public re-implementations (ByzFL, FLPoison), which take ε between 0.1
and 2.

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view
>>> view = attack_view(honest=torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
>>> ipm(epsilon=0.5).craft(None, torch.zeros(1, 2), view)
tensor([[-1.0000,  0.5000]])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.collusion import all_alike
from backstop.platform.threats.rehearsal import benign_rows

VERSION = 1
KNOWS = "all"
STRENGTH = "epsilon"
TRIGGER = False
UNTARGETED = True


def ipm(
    *,
    epsilon: Annotated[
        float,
        Range(0, 1e4, log=True, low_open=True, search=(0.1, 100)),
        "factor on the honest mean, ε",
    ] = 0.5,
) -> Attack:
    """The negative honest mean; what leaves the range of float32 is its largest number."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        benign = benign_rows(rows, view)
        mean = benign.mean(0, dtype=torch.float64)
        return all_alike(mean * -epsilon, rows)

    return Attack(craft=craft)
