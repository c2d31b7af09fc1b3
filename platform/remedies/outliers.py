"""Values that lie apart from the others."""

from __future__ import annotations

import torch
from torch import Tensor

NEARLY = 1e-10  # added to distances that are divided by, as scikit-learn does: points may be equal


def local_outlier_factor(
    point: Tensor,
    others: Tensor,
    neighbors: int,
) -> float:
    """How much less dense it is around a point (s,) than around those of the others (n, s) that are
    its neighbors, n of at least 2: about 1 in their midst, above 1 outside.

    reach(p, o) = max(radius of o, |p - o|),   density of p = 1 / mean reach(p, o)
    LOF(p) = mean density of o / density of p,   o from the neighborhood of p

    A radius is the distance to the nearest neighbor of that number, at most n - 1, and a
    neighborhood all that lies within, more points where distances are equal: so it does not matter
    in which order the others come, and nothing depends on which of equal ones is taken, as it does
    in scikit-learn's factor.

    Source: M. M. Breunig, H.-P. Kriegel, R. T. Ng, J. Sander, "LOF: Identifying Density-Based Local
    Outliers", SIGMOD 2000, definitions 3 to 7; the point is none of the others.

    >>> others = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
    >>> round(local_outlier_factor(torch.tensor([9.0], dtype=torch.float64), others, 2), 2)
    4.33
    """
    count = min(neighbors, len(others) - 1)
    apart = _distances(others, others).fill_diagonal_(torch.inf)
    own = _distances(point[None], others)
    radius = apart.kthvalue(count, dim=1).values
    density = _densities(apart, radius, radius)
    own_radius = own.kthvalue(count, dim=1).values
    near = own <= own_radius[:, None]
    around = density.expand_as(own)[near].mean()
    return (around / _densities(own, own_radius, radius)).item()


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """Of all pairs, (k, n) float64; those of whole numbers have no rounding that tells equal ones
    apart.
    """
    return (one.double()[:, None] - other.double()).square().sum(2).sqrt()


def _densities(apart: Tensor, own: Tensor, radius: Tensor) -> Tensor:
    """The densities (k,) of points at these distances (k, n) from others with a radius (n,); their
    own is (k,).
    """
    near = apart <= own[:, None]
    reach = apart.maximum(radius).where(near, 0.0).sum(1) / near.sum(1)
    return 1 / (reach + NEARLY)
