"""A little is enough: malicious clients send what is just not yet an outlier in any coordinate.

u_i <- μ - z σ,   z = max {z : φ(z) < (n - m - s) / (n - m)},   s = ⌊n/2 + 1⌋ - m

with μ and σ the mean and standard deviation of each coordinate over the honest updates, φ the
standard normal distribution and s the number of honest clients that have to lie farther out than
the malicious ones to make up a majority with them.

Shapes: rows (m, d) → (m, d), all alike; honest (n - m, d).

Source: M. Baruch, G. Baruch, Y. Goldberg, "A Little Is Enough: Circumventing Defenses For
Distributed Learning", NeurIPS 2019, the attack that prevents convergence.

Deviations: the paper's adversary estimates μ and σ from the updates of its own clients; here they
are those of the honest updates, another common definition, since an estimate from one malicious
client fails (σ = 0). Where malicious clients are a majority by themselves, s = 1 in place of
s <= 0, so that z is finite. With one or two malicious clients no z > 0 may be allowed: then z = 0,
and they send μ. Where no honest client takes part, μ and σ are those of the malicious clients' own
rows. The paper's other attack, the backdoor, is ``alie_backdoor``.

Checked: against the authors' code (malicious.py, main.py): the formula, σ over all values and not
one fewer. Their program takes z as given, 1.5 by default; the quantile is the paper's (remembered).

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view
>>> view = attack_view(honest=torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
>>> alie(z=1.5).craft(None, torch.zeros(1, 2), view)
tensor([[-0.5000,  1.0000]])
>>> f"{_most(n=50, m=24):.2f}"  # s = 2, (50 - 24 - 2) / (50 - 24) = 0.923
'1.43'
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
STRENGTH = "z"
TRIGGER = False
UNTARGETED = True


def _most(n: int, m: int) -> float:
    """The largest z that s honest clients are expected to exceed."""
    supporters = max(n // 2 + 1 - m, 1)
    share = max(n - m - supporters, 0) / max(n - m, 1)
    z: Tensor = torch.special.ndtri(torch.tensor(share, dtype=torch.float64))
    return z.clamp_min(0).item()


def alie(
    *,
    z: Annotated[
        float | None,
        Range(0, 1e4, low_open=True, search=(0.1, 10)),
        "standard deviations away from the mean; none: the largest allowed",
    ] = None,
) -> Attack:
    """The honest mean moved by z standard deviations; what leaves the range of float32 is its
    largest number.
    """

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        benign = benign_rows(rows, view)
        far = _most(len(benign) + len(rows), len(rows)) if z is None else z
        values = benign.double()
        return all_alike(values.mean(0) - far * values.std(0, correction=0), rows)

    return Attack(craft=craft)
