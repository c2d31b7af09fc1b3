"""FLAME: the majority cluster by direction, clipped to the median norm, with noise.

c_ij = 1 - cos(u_i, u_j),   b = members of HDBSCAN(c, min_cluster_size = ⌊n/2⌋ + 1)
S = median_i ‖u_i‖,   σ = λ S,   λ = 1/ε · √(2 ln(1.25 / δ))
g = mean_{i in b} u_i · min(1, S / ‖u_i‖) + N(0, σ² I)

Shapes: rows (n, d) → (n, d), clipped and noisy; rows outside the cluster get weight 0.

Source: T. D. Nguyen, P. Rieger, H. Chen, H. Yalame, H. Möllering, H. Fereidooni, S. Marchal, M.
Miettinen, A. Mirhoseini, S. Zeitouni, F. Koushanfar, A.-R. Sadeghi, T. Schneider, "FLAME: Taming
Backdoors in Federated Learning", USENIX Security 2022, algorithm 1. λ = 0.001 is that of its image
and text experiments.

Deviations: the angles are those between updates. The paper's algorithm writes local models, but its
reason for cosines is that scaling an update does not change them, and that holds for updates only:
local models differ from the global one by little, so that the angles between them are hardly more
than distances. Every row gets the same noise vector, so the rows stay one client's each and their
weighted mean moves by exactly that vector. Sample counts weigh the kept rows where the paper takes
the plain mean. All parameters get noise of one σ; another common definition scales it with the
spread of each parameter tensor. Angles count to six decimals. With n <= 2 no row is rejected. With
``min_samples=1`` the cluster is the first group of more than n/2 rows that single linkage joins.

Checked: clustering, clipping and noise against public re-implementations; λ = 0.001 stands in them
too. The paper's text was out of reach: the line on local models in its algorithm is remembered.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> given = updates(torch.tensor([[3.0, 4.0], [6.0, 8.5], [0.0, -5.0]]))
>>> after, _ = flame(noise=0.0).apply(given, None, server_view())
>>> after.weight, after.rows[2]  # the median norm is 5
(tensor([1., 1., 0.]), tensor([ 0., -5.]))
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.params import Range
from backstop.platform.remedies import clusters

VERSION = 2
EXEMPT = ("identical",)  # the noise is there whatever the rows are


def flame(
    *,
    noise: Annotated[
        float,
        Range(0, 1, search=(1e-5, 1e-2)),
        "standard deviation of the noise over the median norm, λ",
    ] = 0.001,
) -> Defense:
    """The clipped rows of the majority with one noise vector on each."""

    def tamed(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        kept = select(updates, _majority(updates.rows))
        limit = robust.norms(updates.rows).quantile(0.5)
        draws = torch.randn(updates.rows.shape[1], generator=view.generator).to(updates.rows.device)
        rows = robust.clip(updates.rows, limit).add_(draws * (noise * limit.item()))
        # a sum of the largest numbers leaves float32
        return kept._replace(rows=rows.nan_to_num_()), state

    return Defense(apply=tamed)


def _majority(rows: Tensor) -> Tensor:
    """Which rows are in the cluster, (n,) bool."""
    if len(rows) <= 2:
        return torch.ones(len(rows), dtype=torch.bool)
    distance = robust.cosine_distances(rows).round(decimals=6).cpu()
    return clusters.hdbscan(distance, smallest=len(rows) // 2 + 1, samples=1) >= 0
