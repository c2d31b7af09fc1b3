"""SignGuard: updates of unusual length or with unusual shares of signs are left out, the others
clipped to the median norm.

G_1 = {i: L <= ‖u_i‖₂ / M <= R},   M = median norm
G_2 = largest Mean-Shift cluster of the rows' shares of positive, zero and negative entries
g = mean of u_i · min(1, M / ‖u_i‖₂) over i in G_1 ∩ G_2

The shares are counted on a tenth of the coordinates, from a random one on.

Shapes: rows (n, d) → (n, d), clipped; the weights of the others become 0.

Source: J. Xu, S.-L. Huang, L. Song, T. Lan, "Byzantine-robust Federated Learning through
Collaborative Malicious Gradient Filtering", ICDCS 2022, its algorithm for SignGuard, with the norm
filter, sign-based clustering and norm clipping.

Deviations: the plain variant, without the cosine or distance feature of SignGuard-Sim and
SignGuard-Dist. Features are the shares themselves; the authors' published code divides each by its
largest, which blows up a feature that is nearly constant. The Mean-Shift bandwidth is the mean over
the rows of the distance to the farthest of the nearest half of the rows, the row itself counted, as
in that code (0, 1, 3, 7 → 2); where it is 0, which is so for fewer than four rows, all are one
cluster. Every row is a seed of the Mean-Shift, where that code takes the occupied cells of a grid,
to save time. The tenth is rounded up, and consecutive as there; one random tenth of all
coordinates, with ``coordinates=spread``, sees every layer. Of two middle norms M is the smaller, so
that a row always passes the norm filter; where both filters leave none, the norm filter decides.
Kept rows are averaged by sample counts, as all defenses here, where the paper takes the plain mean.
Another common definition under this name clusters with 2-means.

Checked: against the authors' signguard.py: norm band, coordinates, features, bandwidth, seeds,
clipping.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> rows = torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0], [-1.0, -2.0], [90.0, 90.0]])
>>> given, view = updates(rows), server_view()
>>> signguard().apply(given, None, view)[0].weight.tolist()
[1.0, 1.0, 1.0, 0.0, 0.0]
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.params import Range

VERSION = 2


def _bandwidth(points: Any) -> float:
    """The mean distance of the points (n, k) to the farthest of the nearest half of them,
    themselves counted.
    """
    from sklearn.cluster import estimate_bandwidth

    return float(estimate_bandwidth(points, quantile=0.5))


def _largest_cluster(features: Tensor) -> Tensor:
    """The rows (n,) of (n, 3) features that Mean-Shift puts into its largest cluster."""
    from sklearn.cluster import MeanShift

    points = features.cpu().numpy()
    bandwidth = _bandwidth(points)
    if not bandwidth:
        return torch.ones_like(features[:, 0], dtype=torch.bool)
    # The margin is far above rounding: points exactly at the bandwidth are inside, whatever the
    # order of the rows.
    model = MeanShift(bandwidth=bandwidth * (1 + 1e-9), cluster_all=False).fit(points)
    labels = torch.from_numpy(model.labels_)
    return (labels == labels[labels >= 0].bincount().argmax()).to(features.device)


def signguard(
    *,
    low: Annotated[
        float, Range(0, 1, search=(0.0, 0.5)), "least norm that is kept, over the median norm, L"
    ] = 0.1,
    high: Annotated[
        float,
        Range(1, 1e6, log=True, search=(1.5, 10.0)),
        "largest norm that is kept, over the median norm, R",
    ] = 3.0,
    share: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.01, 1.0)),
        "share of the coordinates whose signs are counted",
    ] = 0.1,
    coordinates: Annotated[Literal["block", "spread"], "consecutive ones, or any"] = "block",
) -> Defense:
    """The rows that pass both filters keep their weights, clipped to the median norm."""

    def guarded(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        rows = updates.rows
        norms = robust.norms(rows)
        middle = norms.median()
        usual = (norms >= low * middle) & (norms <= high * middle)
        count = robust.ceil_count(share, rows.shape[1])
        if coordinates == "block":
            start = int(torch.randint(max(rows.shape[1] - count, 1), (), generator=view.generator))
            part = rows[:, start : start + count]
        else:
            drawn = torch.randperm(rows.shape[1], generator=view.generator)[:count]
            part = rows[:, drawn.to(rows.device)]
        up, down = (part > 0).sum(1, dtype=torch.int32), (part < 0).sum(1, dtype=torch.int32)
        alike = _largest_cluster(torch.stack([up, count - up - down, down], dim=1).double() / count)
        both = usual & alike
        clipped = updates._replace(rows=robust.clip(rows, middle))
        return select(clipped, both if both.any() else usual), state

    return Defense(apply=guarded)
