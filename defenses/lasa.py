"""LASA: updates are clipped and sparsified, then each layer is averaged over the rows with usual
norm and usual signs there.

Δ_i <- top-k of Δ_i · min(1, M / ‖Δ_i‖₂),   M = median norm,   k = (1 - s) d
in each layer l, with norms n_i and purities ρ_i = 1/2 (1 + Σ sign(Δ_i) / Σ |sign(Δ_i)|), and with
MZ(x_i) = |x_i - median(x)| / std(x):
g_l = mean of Δ_i over {i: MZ(n_i) < λ_n and MZ(ρ_i) < λ_s}

Shapes: rows (n, d) → one merged row (1, d). A layer is one parameter tensor.

Source: J. Xu, Z. Zhang, R. Hu, "Achieving Byzantine-Resilient Federated Learning via Layer-Adaptive
Sparsified Model Aggregation", WACV 2025, the method's algorithm; s = 0.3, λ_n = λ_s = 1 and the
clipping are those of the authors' published code.

Deviations: sparsification looks at all parameters together, where that code spares biases and other
vectors. Coordinates as large as the smallest kept one are kept too. A row without an entry in a
layer has purity 1/2 there. Of two middle norms M is the smaller. Rows are averaged by sample
counts, as all defenses here. As in that code, a layer for which no row passes both filters is
averaged over all.

Checked: sparsification, both filters and clipping against the authors' code, from which s = 0.3 and
both radii are.

Example:
>>> import torch
>>> from dataclasses import replace
>>> from backstop.platform.contract import Slot
>>> from backstop.platform.examples import server_view, updates
>>> rows = torch.tensor([[3.0, 0.0, 4.0], [3.0, 1.0, 4.0], [4.0, 1.0, 3.0], [-3.0, 0.0, 4.0]])
>>> view = replace(server_view(), layout=(Slot("weight", 0, (2,)), Slot("bias", 2, (1,))))
>>> lasa(sparsity=0.34).apply(updates(rows), None, view)[0].rows.round(decimals=2)
tensor([[2.9700, 0.0000, 3.9700]])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, merge
from backstop.platform.params import Range
from backstop.platform.remedies.deviations import usual

VERSION = 2
GIVES = "row"
EXEMPT = ("identical",)  # the smallest coordinates of every row are dropped


def _sparse(rows: Tensor, sparsity: float) -> Tensor:
    """The rows, with 0 for their smallest coordinates."""
    drop = robust.floor_count(sparsity, rows.shape[1])
    sparse = torch.empty_like(rows)
    for row, kept in zip(rows, sparse, strict=True):
        size = row.abs()
        kept.copy_(row.where(size >= size.kthvalue(drop + 1).values, 0.0))
    return sparse


def lasa(
    *,
    sparsity: Annotated[
        float,
        Range(0, 1, high_open=True, search=(0.0, 0.9)),
        "share of its coordinates that a row loses, s",
    ] = 0.3,
    norm_radius: Annotated[
        float,
        Range(0, 1e3, search=(0.5, 3.0)),
        "largest MZ-score of a layer's norm that is kept, λ_n",
    ] = 1.0,
    sign_radius: Annotated[
        float,
        Range(0, 1e3, search=(0.5, 3.0)),
        "largest MZ-score of a layer's sign purity that is kept, λ_s",
    ] = 1.0,
) -> Defense:
    """Each layer's mean over the rows that pass both filters there."""

    def layered(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        norms = robust.norms(updates.rows)
        # of the clipping, put into the sums; a zero row: 1
        factor = (norms.median() / norms).nan_to_num(nan=1.0).clamp(max=1.0)
        rows = _sparse(updates.rows, sparsity)
        merged = torch.zeros_like(rows[0])
        for slot in view.layout:
            layer = rows[:, slot.span]
            up, down = (layer > 0).sum(1, dtype=torch.int32), (layer < 0).sum(1, dtype=torch.int32)
            purity = (up - down).double() / (up + down).clamp(min=1)
            kept = usual(robust.norms(layer) * factor, norm_radius) & usual(purity, sign_radius)
            weight = updates.weight.double() * (kept if kept.any() else 1.0)
            merged[slot.span] = robust.mix((weight / weight.sum() * factor).unsqueeze(0), layer)[0]
        return merge(updates, merged), state

    return Defense(apply=layered)
