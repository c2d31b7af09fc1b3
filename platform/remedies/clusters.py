"""Groupings of a round's rows that several defenses share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from backstop.platform import robust

# angles count in whole millionths: sums of them are exact, so ties do not depend on the order of
# the rows
MILLIONTHS = 1e6
LLOYD_STEPS = 100  # at most; a few suffice

Linkage = Literal["average", "complete"]


def hdbscan(
    distance: Tensor,
    smallest: int,
    samples: int,
    single: bool = True,
) -> Tensor:
    """The cluster (n,) of each row by HDBSCAN, from their distances (n, n) float64; -1 in none.
    None has fewer than ``smallest`` members, and there may be a ``single`` one, or not;
    ``samples`` rows, itself counted, make a row's density.

    Source: R. J. G. B. Campello, D. Moulavi, J. Sander, "Density-Based Clustering Based on
    Hierarchical Density Estimates", PAKDD 2013, as scikit-learn has it.

    >>> points = torch.tensor([0.0, 0.1, 0.2, 9.0], dtype=torch.float64)
    >>> hdbscan((points[:, None] - points).abs(), smallest=3, samples=1)
    tensor([ 0,  0,  0, -1])
    """
    from sklearn.cluster import HDBSCAN

    model = HDBSCAN(
        min_cluster_size=smallest,
        min_samples=samples,
        metric="precomputed",
        allow_single_cluster=single,
        copy=True,
    )
    return torch.from_numpy(model.fit_predict(distance.numpy()))


def larger_of_two(rows: Tensor, linkage: Linkage = "average") -> Tensor:
    """The row numbers of the larger of two clusters by direction, 1 - cosine; cluster by cluster.

    From n clusters of one row the two nearest are joined until two are left; among equal distances
    the first rows are joined first. The distance of two clusters is the mean of their members'
    (average linkage) or the largest (complete linkage). All rows where the clusters are of one size
    or of one direction: neither is a minority.

    >>> larger_of_two(torch.tensor([[1.0, 0.0], [9.0, 1.0], [-1.0, 0.5]])).tolist()
    [0, 1]
    """
    # of all pairs of members of two clusters the sum (average linkage) or the largest (complete)
    apart = (robust.cosine_distances(rows) * MILLIONTHS).round_().cpu()
    members = [[i] for i in range(len(apart))]
    while len(members) > 2:
        size = torch.tensor([len(cluster) for cluster in members])
        one, other = _nearest(apart, size, linkage)
        if linkage == "average":
            joined = apart[one] + apart[other]
        else:
            joined = apart[one].maximum(apart[other])
        apart[one] = apart[:, one] = joined
        left = torch.arange(len(members)) != other
        apart = apart[left][:, left]
        members[one] += members.pop(other)
    small, large = sorted([[], *members], key=len)[-2:]
    if len(small) < len(large) and apart[0, -1]:
        return torch.tensor(large)
    return torch.tensor(small + large)


def _nearest(
    apart: Tensor,
    size: Tensor,
    linkage: Linkage,
) -> tuple[int, int]:
    """The two clusters to be joined, of clusters of these sizes (k,); the first comes first."""
    distance = apart.clone()
    if linkage == "average":
        distance /= size[:, None] * size
    first = int(distance.fill_diagonal_(torch.inf).argmin())
    return divmod(first, len(size))


def two_means(points: Tensor) -> Tensor:
    """Two clusters of n points (n, k) float64 with a small sum of squared distances to their means:
    (n,) bool, true for those of the smaller cluster, false for all where the points are one.

    Lloyd's algorithm from n starts, each point and the one farthest from it; of what they come to,
    the smallest sum counts. Nothing is drawn, so the order of the points does not matter.

    Source: S. P. Lloyd, "Least Squares Quantization in PCM", IEEE Transactions on Information
    Theory 28(2), 1982.

    >>> two_means(torch.tensor([[0.0], [0.2], [0.1], [9.0]]).double())
    tensor([False, False, False,  True])
    """
    second = points[_squared(points, points).argmax(1)]
    centers = torch.stack([points, second], 1)  # (n, 2, k) of each start
    nearer = second.new_zeros(len(points), len(points)).bool()  # to the second, of each start
    for _ in range(LLOYD_STEPS):
        before = nearer
        squared = _squared(centers.flatten(0, 1), points).view(len(points), 2, -1)
        nearer = squared[:, 1] < squared[:, 0]
        if torch.equal(nearer, before):
            break
        share = torch.stack([~nearer, nearer], 1).to(points)
        centers = share @ points / share.sum(2, keepdim=True).clamp_min(1)
    label = nearer[squared.amin(1).sum(1).argmin()]
    return ~label if 2 * label.sum() > len(label) else label


def _squared(ones: Tensor, others: Tensor) -> Tensor:
    """Squared distances of all pairs, float64: (n, k), (m, k) → (n, m)."""
    return torch.stack([(one - others).square().sum(1) for one in ones])


def larger_of_two_chains(apart: Tensor) -> Tensor:
    """The row numbers of the larger of two clusters by single linkage, ascending, from distances
    (n, n); of two equally large ones that of the first row.

    From n clusters of one row the two with the nearest members are joined until two are left; among
    equal distances the first rows are joined first.

    >>> points = torch.tensor([0.0, 5.0, 1.0, 2.0])
    >>> larger_of_two_chains((points[:, None] - points).abs())
    tensor([0, 2, 3])
    """
    n = len(apart)
    one, other = torch.triu_indices(n, n, 1)
    cluster = torch.arange(n)
    for pair in apart[one, other].argsort(stable=True).tolist():
        if len(cluster.unique()) <= 2:
            break
        first, second = cluster[one[pair]], cluster[other[pair]]
        cluster = cluster.where(cluster != second, first)
    return largest_group(cluster)


def largest_group(label: Tensor) -> Tensor:
    """The row numbers with the label that most of (n,) have; of several that of the first row.

    >>> largest_group(torch.tensor([7, 3, 3, 7, 5]))
    tensor([0, 3])
    """
    same = label[:, None] == label
    return same[same.sum(1).argmax()].nonzero().flatten()
