"""Residual-based reweighting: in each coordinate a robust line through the sorted values tells
which updates to trust.

In each coordinate, with x the ranks 0 … n - 1 of the values y and B_1 the repeated median slope of
y on x (Siegel):

r_k = y_k - B_0 - B_1 x_k,   B_0 = median(y) - B_1 (n - 1) / 2
e_k = r_k / τ,   τ = 1.4826 (1 + 5 / (n - 1)) median|r|
w_k = √(1 - h_k) / e_k · Ψ(e_k / √(1 - h_k)),   h = diagonal of the hat matrix of (1, x)
Ψ(z) = max(-Z, min(Z, z)),   Z = λ √(2 / n)

Values with w_k < δ are replaced by B_0 + B_1 x_k. Over all coordinates W_k = Σ std(w) w_k, and row
k has weight (W_k / max W)².

Shapes: rows (n, d) → (n, d), extreme values replaced, reweighted. Time grows with d n²: the slopes
of all pairs.

Source: S. Fu, C. Xie, B. Li, Q. Chen, "Attack-Resistant Federated Learning with Residual-based
Reweighting", 2019 (arXiv 1912.11464), repeated median regression, reweighting and correction of
extreme values in its section on the method.

Deviations: the details follow the authors' published code: λ = 2 and δ = 0.1, the median|r| without
the smallest |r|, the intercept B_0, the square of W. Other than there, equal values share their
mean rank, so that the order of the clients does not matter, and what keeps τ above 0 is 1e-7 of the
coordinate's largest value, not 1e-7, so that the unit does not matter. Updates are looked at, which
differ from the paper's models by a constant. Weights are multiplied by sample counts, as all
defenses here. With one or two rows, or where no coordinate tells rows apart, the sample counts stay
as they are.

Checked: line by line against the authors' code: slopes, intercept, τ, λ = 2, δ = 0.1, the square of
W.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(
...     torch.tensor([[1.0], [2.0], [3.1], [4.0], [90.0]]), torch.ones(5), torch.arange(5)
... )
>>> after = residual_reweighting().apply(updates, None, None)[0]
>>> after.rows.flatten().tolist()[4] < 6, after.weight.tolist()[4] < 1e-3
(True, True)
"""

from __future__ import annotations

from math import sqrt
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, stateless
from backstop.platform.params import Range

VERSION = 1

# coordinates looked at together: fixed, because the order of a sum is part of its bits
_PIECE = 4_096


def _line(y: Tensor) -> tuple[Tensor, Tensor]:
    """The values' ranks less the mean rank, and the line at them. y (n, w) → 2 x (n, w) float64."""
    n = len(y)
    ordered, rank = y.sort(dim=0).values, torch.arange(n, device=y.device)
    slopes = [
        robust.median((ordered[rank != i] - ordered[i]) / (rank[rank != i] - i).unsqueeze(1))
        for i in range(n)
    ]
    # (number below - number above) / 2
    x = torch.stack([robust.sign_sum(value - y) for value in y]).double() / 2
    return x, robust.median(ordered).double() + robust.median(torch.stack(slopes)).double() * x


def _reweighted(y: Tensor, strength: float, least: float) -> tuple[Tensor, Tensor]:
    """The corrected values, and the confidences times their spread. y (n, w) → 2 x (n, w)."""
    n = len(y)
    x, line = _line(y)
    residual = (y - line).abs()
    # Without the smallest of n values the median is the one with an infinite value added.
    added = torch.cat([residual.float(), torch.full_like(y[:1], torch.inf)])
    middle = robust.median(added).double()
    scale = 1.4826 * (1 + 5 / (n - 1)) * middle + 1e-7 * y.abs().amax(0)
    free = 1 - 1 / n - x.square() * 12 / (n * (n * n - 1))  # 1 - h
    bound = strength * sqrt(2 / n) * free.sqrt() * scale
    confidence = (bound / residual).nan_to_num(nan=1.0).clamp(max=1.0)  # all values 0: 1
    return y.double().where(confidence >= least, line), confidence * confidence.std(0)


def residual_reweighting(
    *,
    strength: Annotated[
        float,
        Range(0, 1e3, low_open=True, search=(0.5, 10.0)),
        "residuals up to λ √(2 / n) count in full, λ",
    ] = 2.0,
    least: Annotated[
        float, Range(0, 1, search=(0.0, 0.5)), "smallest confidence with which a value is kept, δ"
    ] = 0.1,
) -> Defense:
    """All rows, extreme values replaced, weighted by the confidence that they deserve."""

    def reweighted(updates: Updates) -> Updates:
        if len(updates.rows) < 3:
            return updates
        rows = torch.empty_like(updates.rows)
        total = torch.zeros_like(updates.weight, dtype=torch.float64)
        largest = torch.finfo(rows.dtype).max
        for start in range(0, rows.shape[1], _PIECE):
            where = slice(start, start + _PIECE)
            # A quarter of the values: no difference of two and no sum of two differences leaves
            # float32.
            values, confidence = _reweighted(updates.rows[:, where] / 4, strength, least)
            rows[:, where] = (values * 4).clamp(-largest, largest).float()
            total += confidence.sum(1)
        trust = (total / total.max()).square().nan_to_num(nan=1.0)
        return updates._replace(rows=rows, weight=(updates.weight * trust).float())

    return stateless(reweighted)
