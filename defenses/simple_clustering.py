"""Simple clustering: two clusters by direction, of which the larger is kept.

c_ij = 1 - cos(u_i, u_j),   d(A, B) = max_{i in A, j in B} c_ij
from n clusters of one row the two with the smallest d are joined until two are left
g = plain mean over the larger one

Shapes: rows (n, d) → (n, d); the weights of the smaller cluster become 0, the others equal.

Source: S. Li, E. C.-H. Ngai, T. Voigt, "An Experimental Study of Byzantine-Robust Aggregation
Schemes in Federated Learning", IEEE Transactions on Big Data 2023 (arXiv 2302.07173), where it is
compared with clipped clustering. The idea of two clusters by cosine is that of F. Sattler, K.-R.
Müller, T. Wiegand, W. Samek, "On the Byzantine Robustness of Clustered Federated Learning", ICASSP
2020.

Deviations: two clusters of one size, or of one direction (d = 0), are both kept: neither is a
minority. Otherwise the smaller cluster is left out, attack or not, as the method has it. Angles
count to six decimals; among equal distances the smaller client ids are joined first.

Checked: linkage, choice of the cluster and mean against the public code of both papers: complete
linkage on the cosine, the larger cluster, a plain mean.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(
...     torch.tensor([[1.0, 0.0], [9.0, 1.0], [-1.0, 0.5]]), torch.ones(3), torch.arange(3)
... )
>>> simple_clustering().apply(updates, None, None)[0].weight
tensor([1., 1., 0.])
"""

from __future__ import annotations

from backstop.platform.contract import Defense, Updates, equal_weights, select, stateless
from backstop.platform.remedies import clusters

VERSION = 2


def simple_clustering() -> Defense:
    """The rows of the larger cluster, with equal weights."""

    def clustered(updates: Updates) -> Updates:
        return equal_weights(select(updates, clusters.larger_of_two(updates.rows, "complete")))

    return stateless(clustered, scope="coordinates")
