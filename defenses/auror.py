"""Auror: clients that stand in the minority at more than half of the coordinates where the updates
fall into two groups.

{u_1j … u_nj} = C ∪ C' by 2-means for each coordinate j
j is indicative: |mean(C) - mean(C')| > α s_j
s_j = length of the shortest interval that holds more than half of u_1j … u_nj, divided by 1.349
client i is malicious: it is in the smaller cluster at more than τ of the indicative coordinates

Shapes: rows (n, d) → (n, d); malicious clients get weight 0.

Source: S. Shen, S. Tople, P. Saxena, "AUROR: Defending Against Poisoning Attacks in Collaborative
Deep Learning Systems", ACSAC 2016, sections on indicative features and malicious users.

Deviations: the paper finds the indicative features and the malicious users once, from the first
epochs; here every round looks anew, without history, since clients take turns. The paper's α is a
length that fits its models and learning rates; here it counts standard deviations of the majority:
s_j is σ for many normal values, scaling a coordinate changes nothing, and a minority cannot make
s_j longer than the honest values are spread. 2-means on 20 normal values leaves the centers less
than 4 s_j apart in 97 of 100 coordinates. 2-means is exact: of all splits of the ordered values
that with the smallest sum of squares, the lowest one among equals. Of two clusters of one size
neither is smaller. If every client passes τ, those at the smallest share stay. Sample counts weigh
the kept rows. Another common definition clusters the clients once more on all indicative
coordinates together instead of counting.

Checked: formula and order of steps against public re-implementations; the authors published no code
that was found. The paper's text was out of reach: that it looks once, and that α is a length, is
remembered.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> rows = torch.tensor([[1.0, 0.0], [1.1, 5.0], [1.2, 2.0], [9.0, 3.0]])
>>> # only the first coordinate is indicative
>>> auror().apply(Updates(rows, torch.ones(4), torch.arange(4)), None, None)[0].weight
tensor([1., 1., 1., 0.])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, select, stateless
from backstop.platform.params import Range

VERSION = 2

_PIECE = 16_384  # coordinates at once


def auror(
    *,
    separation: Annotated[
        float,
        Range(0, 1e6, search=(2, 8)),
        "least distance of the two centers, in standard deviations of the majority, α",
    ] = 4.0,
    share: Annotated[
        float,
        Range(0, 1, search=(0.2, 0.8)),
        "of the indicative coordinates: the most that a client may be in the minority, τ",
    ] = 0.5,
) -> Defense:
    """The rows that are not in the minority too often keep their weights."""

    def kept(updates: Updates) -> Updates:
        rows = updates.rows
        if len(rows) < 3:  # no smaller cluster
            return updates
        times, indicative = torch.zeros(len(rows), dtype=torch.int64, device=rows.device), 0
        for piece in rows.split(_PIECE, dim=1):
            smaller, telling = _minorities(piece, separation)
            times += smaller.sum(1)
            indicative += int(telling.sum())
        most = max(robust.floor_count(share, indicative), int(times.min()))
        return select(updates, times <= most)

    return stateless(kept)


def _minorities(rows: Tensor, separation: float) -> tuple[Tensor, Tensor]:
    """Where rows (n, d) are in the smaller cluster of an indicative coordinate (n, d) bool, and
    which coordinates are (d,) bool.
    """
    import numpy as np

    n, half = len(rows), len(rows) // 2
    if rows.is_cuda:
        ordered = rows.sort(0).values
    else:  # NumPy's sort is vectorized
        ordered = torch.from_numpy(np.sort(rows.numpy(), axis=0))
    values = ordered.double()
    values -= values[0].clone()  # equal values are exactly 0
    spread = (values[half:] - values[: n - half]).amin(0) / 1.349
    values -= values.mean(0)
    size = torch.arange(1, n, device=rows.device)[:, None]
    # what a split takes off the sum of squares, over n
    between, split = (values.cumsum(0)[:-1].square() / (size * (n - size))).max(0)
    lower = split + 1  # members of the lower cluster
    # squared distance of the centers
    indicative = between * n**2 / (lower * (n - lower)) > (separation * spread).square()
    below = rows <= ordered.gather(0, split[None])
    smaller = (below & (lower * 2 < n)) | (~below & (lower * 2 > n))
    return smaller & indicative, indicative
