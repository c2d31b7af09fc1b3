"""Local model poisoning against the trimmed mean and the median: values just outside the honest
ones, on the side where they do harm.

u_ij <- uniform between the honest extreme e_j and o_j
e_j = max_k u_kj where μ_j < 0, else min_k u_kj
o_j = b e_j or e_j / b, whichever lies farther out

with j over the coordinates, k over the honest clients and μ the mean of their updates: where it
falls, malicious values are the largest, else the smallest.

Shapes: rows (m, d) → (m, d); honest (n - m, d).

Source: M. Fang, X. Cao, J. Jia, N. Z. Gong, "Local Model Poisoning Attacks to Byzantine-Robust
Federated Learning", USENIX Security 2020, section on attacking the trimmed mean, with full
knowledge; b = 2 as published.

Deviations: the extremes are of updates, where the paper's are of parameters: b stretches what a
client has learned, not the model. The direction that the model would take without an attack is that
of the honest mean. Both are other common definitions. Where no honest client takes part, the
malicious clients' own rows stand for the honest ones.

Checked: bounds and direction against the authors' published description and public
re-implementations, from which b = 2 is.

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view
>>> view = attack_view(honest=torch.tensor([[-3.0, 2.0], [-1.0, 4.0]]))
>>> row = fang_trimmed_mean(b=2.0).craft(None, torch.zeros(1, 2), view)[0]
>>> -1.0 <= row[0].item() <= -0.5, 1.0 <= row[1].item() <= 2.0
(True, True)
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.rehearsal import benign_rows

VERSION = 1
KNOWS = "all"
STRENGTH = "b"
TRIGGER = False
UNTARGETED = True


def fang_trimmed_mean(
    *,
    b: Annotated[
        float,
        Range(1, 1e4, log=True, search=(1, 100)),
        "factor up to which values lie beyond the honest extreme",
    ] = 2.0,
) -> Attack:
    """Beyond the honest extremes; what leaves the range of float32 is its largest number."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        benign = benign_rows(rows, view)
        falls = benign.mean(0, dtype=torch.float64) < 0
        extreme = torch.where(falls, benign.amax(0), benign.amin(0)).double()
        outer = torch.where((extreme > 0) == falls, extreme * b, extreme / b)
        draws = torch.rand(rows.shape, generator=view.generator).to(extreme)
        return (extreme + draws * (outer - extreme)).to(rows).nan_to_num()

    return Attack(craft=craft)
