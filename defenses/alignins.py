"""AlignIns: updates with a usual direction and usual signs are kept, and clipped to their median
norm.

ω_i = cos(u_i, w)
p = sign(Σ_j sign(u_j)),   ρ_i = share of the top-k coordinates of |u_i| where sign(u_i) = p
S = {i : MZ(ω_i) < λ_c and MZ(ρ_i) < λ_s},   MZ(x_i) = |x_i - median(x)| / std(x)
g = mean of u_i · min(1, M / ‖u_i‖) over i in S,   M = median norm in S;   0 where S is empty

Shapes: rows (n, d) → (n, d), clipped; the weights of the others become 0.

Source: J. Xu, Z. Zhang, R. Hu, "Detecting Backdoor Attacks in Federated Learning via Direction
Alignment Inspection", CVPR 2025, the method with temporal direction alignment (ω) and masked
principal sign alignment (ρ); k = 0.3 d and λ_c = λ_s = 1 are those of the authors' published code.

Deviations: w holds the parameters alone, in that code the buffers too. At least one coordinate
counts in ρ, and those as large as the smallest that counts do too. Where all ω or all ρ are equal,
which is 0 / 0 in that code, all pass. Where nobody passes (of two different rows none does) all
rows become zero and keep their weight. Of two middle norms M is the smaller. Angles count to nine
decimals.

Known to fail: nothing that was tried here got through, but one standard deviation is not far: of
honest rows alone, too, a third and more are left out.

Checked: both alignments, the median Z-score, its strict limit, the clipping and the mean by sample
counts against the authors' code (AlignIns, src/aggregation.py and the defaults of src/federated.py
at aff6126). The paper's text was out of reach.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> view = server_view(torch.tensor([1.0, 1.0, 0.0, 0.0]))
>>> signs = torch.tensor([[1.0, 1, 1, -1], [1, 1, 2, -1], [2, 1, 1, -1], [-9, -9, 1, 1]])
>>> after, _ = alignins().apply(updates(signs), None, view)
>>> after.weight.tolist()
[1.0, 1.0, 1.0, 0.0]
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.params import Range
from backstop.platform.remedies.deviations import usual

VERSION = 1


def _directions(rows: Tensor, params: Tensor) -> Tensor:
    """The cosine of each row with the global model (n,), 0 where one of them is zero."""
    lengths = robust.norms(rows) * robust.norms(params.unsqueeze(0))
    cosine = robust.products_with(rows, params) / lengths
    return cosine.nan_to_num(nan=0.0).round(decimals=9)


def _agreements(rows: Tensor, share: float) -> Tensor:
    """On which part of its largest coordinates each row has the sign of the majority (n,)."""
    principal = robust.sign_sum(rows).sign()
    count = max(robust.floor_count(share, rows.shape[1]), 1)
    agreements = []
    for row in rows:
        size = row.abs()
        large = size >= size.kthvalue(len(size) - count + 1).values
        agreements.append((row.sign() == principal)[large].double().mean())
    return torch.stack(agreements)


def alignins(
    *,
    share: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.1, 1.0)),
        "share of a row's coordinates whose signs count, the largest ones, k / d",
    ] = 0.3,
    direction_radius: Annotated[
        float,
        Range(0, 1e3, search=(0.5, 3.0)),
        "MZ-score of the angle to the global model that is no longer kept, λ_c",
    ] = 1.0,
    sign_radius: Annotated[
        float,
        Range(0, 1e3, search=(0.5, 3.0)),
        "MZ-score of the agreement in signs that is no longer kept, λ_s",
    ] = 1.0,
) -> Defense:
    """The rows that pass both inspections keep their weight, clipped to their median norm."""

    def inspected(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        rows = updates.rows
        kept = usual(_directions(rows, view.params), direction_radius)
        kept &= usual(_agreements(rows, share), sign_radius)
        if not kept.any():
            return updates._replace(rows=torch.zeros_like(rows)), state
        clipped = robust.clip(rows, robust.norms(rows)[kept].median())
        return select(updates._replace(rows=clipped), kept), state

    return Defense(apply=inspected)
