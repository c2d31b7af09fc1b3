"""SMEA: the mean of the n - f rows that vary least along the direction in which they vary most.

S = argmin over |S| = n - f of λ_max(1/|S| Σ_{i in S} (u_i - ū_S)(u_i - ū_S)ᵀ)
g = Σ_{i in S} w_i u_i / Σ_{i in S} w_i

Shapes: rows (n, d) → (n, d); the weights of f rows become 0.

Source: Y. Allouah, R. Guerraoui, N. Gupta, R. Pinot, J. Stephan, "On the Privacy-Robustness-Utility
Trilemma in Distributed Learning", ICML 2023, smallest maximum eigenvalue averaging.

Deviations: exact, as in the paper, where there are at most 20,000 subsets (n = 20: up to f = 5);
the first in lexicographic order of equal ones. Beyond that a greedy search: f times the row goes
that has the largest share in the largest eigenvalue; so it is with the default f = 9 at n = 20,
which has 167,960 subsets. Sample counts weight the mean, where the paper's is plain; the covariance
is plain. The eigenvalues are exact, from the (n, n) distances; another common definition takes one
power step from a random start.

Checked: the definition against the paper's (remembered); there is no public code of its authors.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[0.0], [1.0], [1.5], [90.0]]), torch.ones(4), torch.arange(4))
>>> smea(f=1).apply(updates, None, None)[0].weight.tolist()
[1.0, 1.0, 1.0, 0.0]
"""

from __future__ import annotations

from itertools import combinations, islice
from math import comb

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, select, stateless
from backstop.platform.remedies.parameters import Minority, attackers

VERSION = 2
NEEDS = ("f",)

# so many are gone through: about a second for n = 20 and f = 5, six for n = 50 and f = 3
_SUBSETS = 20_000
_TOGETHER = 200  # subsets in a batch


def smea(
    *,
    f: Minority = None,
) -> Defense:
    """The rows of the least varying subset keep their weight."""

    def chosen(updates: Updates) -> Updates:
        n = len(updates.rows)
        count = n - attackers(f, n)
        search = _exact if comb(n, count) <= _SUBSETS else _greedy
        return select(updates, search(robust.distances(updates.rows).cpu(), count))

    return stateless(chosen, scope="coordinates")


def _centered(squared: Tensor) -> Tensor:
    """Inner products (…, m, m) of rows minus their mean, for each of many subsets of m rows."""
    to_mean = squared.mean(-1, keepdim=True)
    return (to_mean + to_mean.mT - to_mean.mean(-2, keepdim=True) - squared) / 2


def _exact(squared: Tensor, count: int) -> Tensor:
    subsets = combinations(range(len(squared)), count)
    best, least = torch.arange(count), torch.inf
    scale = squared.max().item() or 1.0
    while some := list(islice(subsets, _TOGETHER)):
        rows = torch.tensor(some)
        among = squared[rows[:, :, None], rows[:, None, :]]
        # ties do not hang on the last digits
        largest = torch.linalg.eigvalsh(_centered(among) / scale)[:, -1].round(decimals=12)
        if largest.min() < least:
            best, least = rows[largest.argmin()], largest.min().item()
    return best


def _greedy(squared: Tensor, count: int) -> Tensor:
    left = torch.arange(len(squared))
    while len(left) > count:
        _, vectors = torch.linalg.eigh(_centered(squared[left][:, left]))
        left = left[torch.arange(len(left)) != vectors[:, -1].square().argmax()]
    return left
