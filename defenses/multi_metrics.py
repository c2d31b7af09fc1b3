"""Multi-metrics: the updates that are nearest to all others by three distances at once, each on the
scale of its spread.

t_i = (Σ_j (1 - cos(w_i, w_j))², Σ_j ‖w_i - w_j‖₁, Σ_j |‖w_i‖₂ - ‖w_j‖₂|)
score_i = t_iᵀ Σ⁻¹ t_i,   Σ = covariance of the t_i
g = mean of u_i over the ⌊p n⌋ rows with the lowest scores

with w_i = w + u_i, the local models, or u_i in their place.

Shapes: rows (n, d) → (n, d); all other rows get weight 0.

Source: S. Huang, Y. Li, C. Chen, L. Shi, Y. Gao, "Multi-Metrics Adaptively Identifies Backdoors in
Federated Learning", ICCV 2023, the gradient features, dynamic weighting and aggregation; p = 0.3
is that of the authors' published code.

Deviations: that code squares the cosine distance, and so does this; whether the paper does is not
known. That code compares local models, the re-implementations in the code of AlignIns and MASA
updates: ``compared`` chooses. At least one row is kept. Where Σ has no inverse (fewer than four
rows; a distance that is the same for all; in one coordinate), its pseudo-inverse takes its place,
on distances in units of their standard deviations, without directions of less than a billionth of
the largest variance. Scores that agree in nine digits are ties, and the smaller client id wins.

Known to fail: Σ is that of all rows, attackers among them. Several that send long rows stretch it
where they are, and so come near in its units.

Checked: distances, covariance, score and number of rows against the authors' code (Multi-metrics,
defense.py at 5cd027e). The paper's text was out of reach.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> rows = torch.randn(10, 50, generator=torch.Generator().manual_seed(0))
>>> rows[2] *= 9  # too long,
>>> rows[7] = -rows[6]  # the other way
>>> after, _ = multi_metrics().apply(updates(rows), None, server_view())
>>> after.weight.nonzero().flatten().tolist()
[3, 4, 5]
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.params import Range

VERSION = 1

_LEAST = 1e-9  # share of the largest variance below which a direction has none


def _features(vectors: Tensor) -> Tensor:
    """Of each vector (n, d) the sums of its three distances to all others (n, 3), float64."""
    length = robust.norms(vectors)
    apart = (
        robust.cosine_distances(vectors).square(),
        robust.manhattan_distances(vectors),
        (length[:, None] - length).abs(),
    )
    return torch.stack([distance.sum(1) for distance in apart], dim=1).cpu()


def _scores(features: Tensor) -> Tensor:
    """Squared Mahalanobis lengths of features (n, k) by their own covariance (n,), as whole numbers
    of billionths of the largest.
    """
    largest = features.amax(0)
    spread = (features / largest).nan_to_num(nan=0.0).std(0, correction=0) * largest
    varies = spread > _LEAST * largest
    units = features[:, varies] / spread[varies]
    centered = units - units.mean(0)
    inverse = torch.linalg.pinv(centered.t() @ centered / len(units), rtol=_LEAST, hermitian=True)
    scores: Tensor = ((units @ inverse) * units).sum(1)
    return (scores / scores.amax() * 1e9).round().nan_to_num(nan=0.0)


def multi_metrics(
    *,
    share: Annotated[
        float, Range(0, 1, low_open=True, search=(0.1, 0.8)), "share of the rows that is kept, p"
    ] = 0.3,
    compared: Annotated[
        Literal["updates", "models"], "vectors whose distances are taken"
    ] = "updates",
) -> Defense:
    """The rows with the lowest scores keep their weight."""

    def nearest(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        rows = updates.rows
        vectors = (rows + view.params).nan_to_num() if compared == "models" else rows
        count = max(robust.floor_count(share, len(rows)), 1)
        order = _scores(_features(vectors)).argsort(stable=True)
        return select(updates, order[:count]), state

    return Defense(apply=nearest)
