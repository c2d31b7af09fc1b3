"""Local model poisoning against Krum: malicious clients turn the model round as far as Krum still
picks one of them.

u_1 <- -λ s,   s = sign(μ),   λ halved from λ_0 until Krum picks a malicious row or λ < 1e-5
u_i <- u_1 + r,   ‖r‖ <= ε,   i = 2 … m

λ_0 = √(min_i Σ_{j ∈ N(i)} ‖u_i - u_j‖² / ((n - 2m - 1) d)) + max_i ‖u_i‖ / √d

with i, j over the honest clients, N(i) the n - m - 2 of them nearest to u_i, and μ the mean of
their updates.

Shapes: rows (m, d) → (m, d); honest (n - m, d).

Source: M. Fang, X. Cao, J. Jia, N. Z. Gong, "Local Model Poisoning Attacks to Byzantine-Robust
Federated Learning", USENIX Security 2020, section on attacking Krum, with full knowledge.

Deviations: λ_0 is a bound of this project, and a sound one: no λ > λ_0 can do, since the honest
row of the smallest sum would beat a malicious one, whose distances to n - 2m - 1 honest rows are
at least λ √d - max_i ‖u_i‖. The paper has a theorem with a bound of its own; public codes start
from unsquared distances, min_i Σ_j ‖u_i - u_j‖ / ((n - 2m - 1) √d) + max_i ‖u_i - μ‖ / √d. Where
the halving starts changes λ by less than a factor of two. The paper takes s from the step of the
global model without an attack, which under Krum is a single client's; here from the honest mean,
as in those codes. Coordinates in which μ is exactly 0 have no direction and stay 0: d counts the
others. Counts below 1 (n - 2m - 1, n - m - 2) are 1. As in the paper, λ is found with all
malicious rows at u_1. r has a uniform direction and a uniform length. Where no honest client takes
part, the malicious clients' own rows stand for the honest ones.

Checked: against compute_lambda_fang and get_malicious_updates_fang of V. Shejwalkar and A.
Houmansadr's public code: the direction, the halving and its end. ε is the paper's (remembered).

Cost: one matrix of distances between the honest rows; a step of the search costs no pass over the
coordinates.

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view
>>> view = attack_view(honest=torch.tensor([[-1.0], [1.0], [3.0], [9.0]]))
>>> fang_krum().craft(None, torch.zeros(1, 1), view)  # λ_0 = √(8 / 2) + 9 = 11; Krum picks -11 / 16
tensor([[-0.6875]])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.rehearsal import benign_rows

VERSION = 1
KNOWS = "all"
STRENGTH = None
TRIGGER = False
UNTARGETED = True
_THRESHOLD = 1e-5  # the paper's


def _nearest(squared: Tensor, count: int) -> Tensor:
    """Sums of the ``count`` smallest entries beside the diagonal, at least one: (n, n) → (n,)."""
    ordered = squared.clone().fill_diagonal_(torch.inf).sort(1).values
    return ordered[:, : min(max(count, 1), len(squared) - 1)].sum(1)


def fang_krum(
    *,
    radius: Annotated[
        float,
        Range(0, 1e3, search=(0, 1)),
        "distance up to which the other malicious rows lie from the first, ε",
    ] = 0.01,
) -> Attack:
    """The honest signs turned round, as far as Krum goes along."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        benign = benign_rows(rows, view)
        m, n = len(rows), len(rows) + len(benign)
        sign = benign.mean(0, dtype=torch.float64).sign().to(rows)
        d = sign.square().sum(dtype=torch.float64).clamp_min(1)
        apart, lengths = robust.distances(benign), robust.norms(benign)
        along = (benign * sign).sum(1, dtype=torch.float64)

        def picked(factor: Tensor) -> bool:
            squared = torch.zeros(n, n).to(apart)
            squared[m:, m:] = apart
            squared[m:, :m] = (lengths.square() + 2 * factor * along + factor.square() * d)[:, None]
            squared[:m, m:] = squared[m:, :m].t()
            scores = _nearest(squared, n - m - 2)
            return bool(scores[:m].min() <= scores[m:].min())

        factor = lengths.max() / d.sqrt()
        if len(benign) > 1:
            least = _nearest(apart, n - m - 2).min()
            factor = factor + (least / (max(n - 2 * m - 1, 1) * d)).sqrt()
        while factor >= _THRESHOLD and not picked(factor):
            factor = factor / 2
        noise = torch.randn(rows.shape, generator=view.generator).to(rows)
        length = torch.rand(m, 1, generator=view.generator).to(rows) * radius
        length[0] = 0
        around = noise / noise.square().sum(1, keepdim=True).sqrt() * length
        return (-factor * sign + around).to(rows).nan_to_num()

    return Attack(craft=craft)
