"""Bulyan: Krum selects rows one after the other, then each coordinate is the mean of the values
nearest to the median.

S = {};   θ = n - 2f times: move Krum's choice among the rows left to S
g_j = mean of the β = θ - 2f values of S nearest to median(S)_j

Shapes: rows (n, d) → one merged row (1, d).

Source: E. M. El Mhamdi, R. Guerraoui, S. Rouault, "The Hidden Vulnerability of Distributed Learning
in Byzantium", ICML 2018, section on Bulyan.

Deviations: Krum is that of the data sheet of ``krum`` with the m rows that are left in place of n:
squared distances, ties to the smaller client id, m - f - 2 neighbors and at least one where there
is another row (with f = 1 the last step would have none). The guarantee of the paper needs
n >= 4f + 3; for a larger f at least one row is selected and one value kept. Sample counts are not
used, as in the paper. Another common definition takes the θ best of a single Krum ranking.

Checked: selection, θ and β against public re-implementations; the authors' code was not found. The
condition n ≥ 4f + 3 is remembered.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(
...     torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [90.0]]),
...     torch.ones(7),
...     torch.arange(7),
... )
>>> bulyan(f=1).apply(updates, None, None)[0].rows.tolist()  # selected in this order: 2, 3, 1, 4, 0
[[2.0]]
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, merge, stateless
from backstop.platform.params import Range

VERSION = 2
NEEDS = ("f",)
GIVES = "row"
# scored by one neighbor, two rows nearest to each other tie, and the order of the rows decides
EXEMPT = ("permutation",)


def bulyan(
    *,
    f: Annotated[
        int | None,
        Range(0, 10**6, search=(0, 10)),
        "number of attackers assumed; none: the largest with 4f + 3 <= n",
    ] = None,
) -> Defense:
    """The mean around the median of the selected rows."""

    def aggregated(updates: Updates) -> Updates:
        n = len(updates.rows)
        assumed = max((n - 3) // 4, 0) if f is None else f
        count = max(n - 2 * assumed, 1)
        chosen = _chosen(robust.distances(updates.rows).cpu(), assumed, count)
        kept = max(count - 2 * assumed, 1)
        return merge(updates, robust.mean_around_median(updates.rows, kept, chosen))

    return stateless(aggregated, scope="coordinates")


def _chosen(squared: Tensor, f: int, count: int) -> list[int]:
    """The numbers of the rows that Krum chooses one after the other."""
    left, chosen = list(range(len(squared))), []
    for _ in range(count):
        neighbors = min(max(len(left) - f - 2, 1), len(left) - 1)
        others = squared[left][:, left].fill_diagonal_(torch.inf)
        scores = others.sort(dim=1).values[:, :neighbors].sum(1)
        chosen.append(left.pop(int(scores.argmin())))
    return chosen
