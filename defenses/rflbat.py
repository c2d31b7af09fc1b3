"""RFLBAT: in the plane of their two principal components, far updates go, then all clusters but the
least uniform one.

x_i: the first two principal components of u_i,   D_i = Σ_j ‖x_i - x_j‖
1. keep i while D_i <= ε₁ · median(D)
2. k-means clusters of the x_i, their number by the gap statistic
3. keep the cluster C with the smallest median_{i ∈ C} (1/|C| Σ_{j ∈ C} cos(u_i, u_j))
4. keep i while D_i <= ε₂ · median(D) in C

Shapes: rows (n, d) → (n, d); all others get weight 0.

Source: Y. Wang, D.-H. Zhai, Y. Zhan, Y. Xia, "RFLBAT: A Robust Federated Learning Algorithm against
Backdoor Attack", 2022 (arXiv 2201.03772), section on the algorithm; number of clusters: R.
Tibshirani, G. Walther, T. Hastie, "Estimating the Number of Clusters in a Data Set via the Gap
Statistic", Journal of the Royal Statistical Society B 63, 2001, with references uniform in the box
along the axes.

Deviations: sample counts weigh the kept rows. After step 1 has dropped a row the plane is fitted
again and step 1 repeated, since one far row presses all others into a point. A D equal to its limit
passes, so that identical rows do. k-means starts from every row once, with the rows farthest from
all centers so far as the others, in place of random centers; at most 10 clusters are tried, against
10 reference sets. Another common definition scales the plane to a unit square first, and adds
distances in place of their squares. A mean cosine counts the row itself: a cluster of one has the
value 1. The principal components come from the distances of all pairs, which give the same plane as
the (n, d) matrix, here to a millionth of the largest coordinate.

Checked: filters and clusters against public re-implementations, from which ε₁ = 10 and ε₂ = 4 are;
the authors' code was not found and the paper's text was out of reach.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> given = updates(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [8.0, 8.0], [8.0, 9.0]]))
>>> after, _ = rflbat().apply(given, None, server_view())
>>> after.weight.tolist()
[1.0, 1.0, 1.0, 0.0, 0.0]
"""

from __future__ import annotations

from math import sqrt
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.params import Range

VERSION = 2

_MOST = 10  # clusters
_REFERENCES = 10  # sets of the gap statistic
_STEPS = 100  # of k-means; it has long settled
_GRID = 1e6  # the largest coordinate: what is finer than 1 may be a rounding error of the distances


def rflbat(
    *,
    eps1: Annotated[
        float, Range(1, 1e3, search=(2, 20)), "largest D before the clustering, in medians of D, ε₁"
    ] = 10.0,
    eps2: Annotated[
        float,
        Range(1, 1e3, search=(1, 10)),
        "largest D inside the chosen cluster, in medians of D, ε₂",
    ] = 4.0,
) -> Defense:
    """The near rows of the cluster with the least similar members keep their weight."""

    def chosen(updates: Updates, view: ServerView) -> Updates:
        squared = robust.distances(updates.rows).cpu()
        cosine = 1 - robust.cosine_distances(updates.rows).cpu()
        left = torch.arange(len(squared))  # numbers of rows, always in the full list
        while not (near := _near(plane := _plane(squared[left][:, left]), eps1)).all():
            left = left[near]
        label = _clusters(plane, view.generator)
        values = []
        for cluster in range(int(label.max()) + 1):
            members = left[label == cluster]
            values.append(cosine[members][:, members].mean(1).quantile(0.5))
        best = label == torch.stack(values).argmin()
        return select(updates, left[best][_near(plane[best], eps2)])

    return Defense(apply=lambda updates, state, view: (chosen(updates, view), state))


def _plane(squared: Tensor) -> Tensor:
    """The first two principal components of rows, from their squared distances (n, n) → (n, 2) (one
    component where n = 1).

    In whole numbers up to ``_GRID``, so that rows that are equal beside a far one are one point.
    Nothing here depends on the scale.
    """
    variance, axes = torch.linalg.eigh(robust.centred_products(squared))
    points: Tensor = axes[:, -2:] * variance[-2:].clamp_min(0).sqrt()
    largest = points.abs().amax().clamp_min(torch.finfo(torch.float64).tiny)
    return (points / largest * _GRID).round()


def _near(points: Tensor, limit: float) -> Tensor:
    """Which points have a sum of distances to all others of at most ``limit`` medians; half of them
    always do.
    """
    total: Tensor = (points.unsqueeze(1) - points).square().sum(2).sqrt().sum(1)
    return total <= limit * total.quantile(0.5)


def _clusters(points: Tensor, generator: torch.Generator) -> Tensor:
    """Cluster numbers of points (n, 2): the smallest k with Gap(k) >= Gap(k + 1) - s(k + 1)."""
    box = points.amax(0) - points.amin(0)
    label = torch.zeros(len(points), dtype=torch.int64)
    if not box.any():
        return label
    draws = torch.rand(_REFERENCES, *points.shape, generator=generator, dtype=torch.float64)
    sets, before = torch.cat([points.unsqueeze(0), draws * box]), -torch.inf
    for k in range(1, min(_MOST, len(points) - 1) + 1):
        split, spread = _k_means(sets, k)
        logarithms = spread.log()
        # infinite where every point is a center
        gap = (logarithms[1:].mean() - logarithms[0]).item()
        error = logarithms[1:].std(correction=0).item() * sqrt(1 + 1 / _REFERENCES)
        if before >= gap - error:
            break
        label, before = split, gap
    return label


def _k_means(sets: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """k-means on several sets (s, n, 2) at once → cluster numbers of the first set (n,), sums of
    squared distances to the centers (s,).

    The best of n runs, of which each starts from another point and adds the point farthest from all
    centers until there are k.
    """
    # (s · n, n, 2), (s · n, 1, 2)
    points, centers = sets.repeat_interleave(sets.shape[1], 0), sets.flatten(0, 1).unsqueeze(1)
    far = (points - centers).square().sum(2)
    for _ in range(k - 1):
        new = points[torch.arange(len(points)), far.argmax(1)].unsqueeze(1)
        centers = torch.cat([centers, new], 1)
        far = torch.minimum(far, (points - new).square().sum(2))
    for _ in range(_STEPS):
        squares = (points.unsqueeze(2) - centers.unsqueeze(1)).square().sum(3)  # (s · n, n, k)
        member = one_hot(squares.argmin(2), k).double()
        count = member.sum(1).unsqueeze(2)
        moved = ((member.transpose(1, 2) @ points) / count.clamp_min(1)).where(count > 0, centers)
        if torch.equal(moved, centers):
            break
        centers = moved
    spread = squares.amin(2).sum(1).reshape(len(sets), -1)
    return squares[int(spread[0].argmin())].argmin(1), spread.amin(1)
