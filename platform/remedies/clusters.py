"""Groupings of a round's rows that several defenses share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from backstop.platform import robust

# angles count in whole millionths: sums of them are exact, so ties do not depend on the order of
# the rows
MILLIONTHS = 1e6

Linkage = Literal["average", "complete"]


def hdbscan(
    distance: Tensor,
    smallest: int,
    samples: int,
) -> Tensor:
    """The cluster (n,) of each row by HDBSCAN, from their distances (n, n) float64; -1 in none.
    There may be a single cluster, and none has fewer than ``smallest`` members; ``samples`` rows,
    itself counted, make a row's density.

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
        allow_single_cluster=True,
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
