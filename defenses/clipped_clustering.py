"""Clipped clustering: updates clipped to the median of all norms seen so far, then two clusters by
direction, of which the larger is kept.

u_i <- u_i · min(1, τ / ‖u_i‖)
τ = median of the norms of all updates of this and all earlier rounds
c_ij = 1 - cos(u_i, u_j),   d(A, B) = mean_{i in A, j in B} c_ij
from n clusters of one row the two with the smallest d are joined until two are left
g = mean over the larger one

Shapes: rows (n, d) → (n, d), clipped; the weights of the smaller cluster become 0. History: one
norm for each update ever received.

Source: S. Li, E. C.-H. Ngai, T. Voigt, "An Experimental Study of Byzantine-Robust Aggregation
Schemes in Federated Learning", IEEE Transactions on Big Data 2023 (arXiv 2302.07173), the section
on ClippedClustering.

Deviations: the norms are those of updates as received, before clipping. Sample counts weigh the
kept rows. Two clusters of one size, or of one direction (d = 0), are both kept: neither is a
minority. Otherwise the smaller cluster is left out, attack or not, as the method has it. Angles
count to six decimals; among equal distances the smaller client ids are joined first. Another common
definition also caps τ at a constant.

Checked: against the authors' code (blades): median of all earlier norms, average linkage, larger
cluster, and its cap on τ.

Needs: history.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(
...     torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, -1.0]]), torch.ones(3), torch.arange(3)
... )
>>> after, norms = clipped_clustering().apply(updates, torch.tensor([5.0, 5.0]), None)
>>> after.weight, after.rows[1], norms
(tensor([1., 1., 0.]), tensor([3., 4.]), tensor([ 5.,  5.,  5., 10.,  1.]))
"""

from __future__ import annotations

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.remedies import clusters

VERSION = 2
NEEDS = ("history",)


def clipped_clustering() -> Defense[Tensor]:
    """The clipped rows of the larger cluster keep their weights."""

    def clustered(updates: Updates, past: Tensor, _: ServerView) -> tuple[Updates, Tensor]:
        kept = select(updates, clusters.larger_of_two(updates.rows))
        norms = torch.cat([past, robust.norms(updates.rows).to(past)])
        return kept._replace(rows=robust.clip(updates.rows, norms.quantile(0.5))), norms

    return Defense(init=lambda view: torch.zeros(0, dtype=torch.float64), apply=clustered)
