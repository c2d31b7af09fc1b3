"""Whether two samples of numbers look like draws from one distribution."""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor


def differ(one: Tensor, other: Tensor, level: float) -> bool:
    """Whether two samples (n,) and (m,), float64, have other means (Student's t), spreads (Levene,
    from the medians) or distributions (Kolmogorov and Smirnov, exact), each at this level; False
    where one of them has fewer than two values.

    >>> import torch
    >>> low, high = torch.arange(9.0), torch.arange(9.0) + 8
    >>> differ(low, high, 0.01), differ(low, low + 1, 0.01)
    (True, False)
    """
    if min(len(one), len(other)) < 2:
        return False
    spread = [(sample - sample.quantile(0.5)).abs() for sample in (one, other)]
    tests = (
        _means(one, other),
        _means(*spread),
        _distributions(one, other),
    )
    return any(p < level for p in tests)


def _means(one: Tensor, other: Tensor) -> float:
    """The two-sided p-value of Student's test for equal means, of equal variances; on distances
    from the medians it is Levene's test of two samples.
    """
    from scipy.special import stdtr

    apart = (one.mean() - other.mean()).abs().item()
    freedom = len(one) + len(other) - 2
    inside = sum((sample - sample.mean()).square().sum().item() for sample in (one, other))
    error = (inside / freedom * (1 / len(one) + 1 / len(other))) ** 0.5
    if not error:
        return 1.0 if not apart else 0.0
    return float(2 * stdtr(freedom, -apart / error))


def _distributions(one: Tensor, other: Tensor) -> float:
    """The exact two-sided p-value of Kolmogorov's and Smirnov's test of two samples: of all orders
    in which n and m values may come, the share in which the two distribution functions are as far
    apart somewhere as they are here.

    In whole numbers, since scipy's own warns and falls back to an approximation for some sizes.
    """
    n, m = len(one), len(other)
    both = torch.cat([one, other])
    below = [(sample <= both[:, None]).sum(1) for sample in (one, other)]
    widest = int((below[0] * m - below[1] * n).abs().max())
    # orders that have come to i values of the first sample and j of the second, never so far apart
    ways = [1] + [0] * m
    for i in range(n + 1):
        for j in range(m + 1):
            come = ways[j] + (ways[j - 1] if j else 0) if i else (ways[j - 1] if j else 1)
            ways[j] = come if abs(i * m - j * n) < widest else 0
    return 1 - ways[m] / comb(n + m, n)
