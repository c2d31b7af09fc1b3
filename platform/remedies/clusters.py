"""Groupings of a round's rows that several defenses share."""

from __future__ import annotations

from itertools import pairwise
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


def smaller_of_two_values(values: Tensor) -> Tensor:
    """Which of n whole numbers (n,) are in the smaller of two clusters by Ward's method; none where
    the clusters are of one size or all numbers are equal: neither is a minority.

    From n clusters of one number the two are joined whose union adds least to the squared distances
    from the means; those are neighbors on the line. Among equal ones the smaller numbers are joined
    first. Sums of whole numbers are exact, so that the order of the numbers does not matter.

    Source: J. H. Ward, "Hierarchical Grouping to Optimize an Objective Function", Journal of the
    American Statistical Association 58(301), 1963.

    >>> smaller_of_two_values(torch.tensor([0, 70, 2, 1]))
    tensor([False,  True, False, False])
    """
    ordered = sorted(int(value) for value in values.tolist())
    clusters = [(1, value) for value in ordered]  # size and sum
    while len(clusters) > 2:
        added = [_ward(one, other) for one, other in pairwise(clusters)]
        i = added.index(min(added))
        (n, one), (m, other) = clusters[i : i + 2]
        clusters[i : i + 2] = [(n + m, one + other)]
    low, high = clusters[0][0], clusters[-1][0]
    if low == high or ordered[0] == ordered[-1]:
        return torch.zeros(len(values), dtype=torch.bool)
    lower = values <= ordered[low - 1]
    return lower if low < high else ~lower


def _ward(one: tuple[int, int], other: tuple[int, int]) -> float:
    """What joining two clusters, each a size and a sum, adds to the squared distances."""
    (n, first), (m, second) = one, other
    # whole numbers until the division, which rounds once: equal ones stay equal
    return (first * m - second * n) ** 2 / (n * m * (n + m))


def spectral_halves(alike: Tensor) -> Tensor:
    """Which of n are in the smaller of two spectral clusters (n,), from similarities (n, n) of 0
    and more, which count in millionths; none where all pairs are equally alike.

    Two means of the second eigenvector of the normalized similarities, those of each with itself
    aside, divided by the roots of their sums; of two clusters of one size those whom 2-means puts
    second.

    Source: J. Shi, J. Malik, "Normalized Cuts and Image Segmentation", IEEE Transactions on Pattern
    Analysis and Machine Intelligence 22(8), 2000, as scikit-learn has it.

    >>> apart = torch.tensor([[0.0, 0.0, 3.0], [0.0, 0.0, 3.0], [3.0, 3.0, 0.0]])
    >>> spectral_halves((-apart).exp())
    tensor([False, False,  True])
    """
    near = (alike.double() * MILLIONTHS).round().fill_diagonal_(0)
    one, other = torch.triu_indices(len(near), len(near), 1)
    pairs = near[one, other]
    if len(pairs) < 2 or pairs.min() == pairs.max():
        return torch.zeros(len(near), dtype=torch.bool)
    scale = near.sum(1).clamp_min(1).rsqrt()
    vectors = torch.linalg.eigh(near * scale[:, None] * scale).eigenvectors
    return two_means((vectors[:, -2] * scale / scale.max())[:, None])
