"""Multi-Krum: the mean of the updates that are closest to their neighbors.

s(i) = Σ_{i → j} ‖u_i - u_j‖² over the n - f - 2 nearest u_j
g = mean of the m rows with the smallest s(i)

Shapes: rows (n, d) → (n, d); the weights of the others become 0.

Source: P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine Learning with Adversaries:
Byzantine Tolerant Gradient Descent", NeurIPS 2017, Multi-Krum in the section of experiments.

Deviations: the chosen rows are averaged by sample counts, as all defenses here, where the paper
takes the plain mean. Without ``keep`` m is n - f, the most that leaves f attackers out. Scores are
computed once, as in the paper, not anew after each choice.

Checked: the numbers against ByzFL 0.0.11 (tests/defenses/test_byzfl.py) where the score of f + 1
there is the one of f here: equal. The plain mean of the paper is remembered.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[0.0], [1.0], [1.5], [90.0]]), torch.ones(4), torch.arange(4))
>>> multi_krum(f=1).apply(updates, None, None)[0].weight.tolist()
[1.0, 1.0, 1.0, 0.0]
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, select, stateless
from backstop.platform.params import Range
from backstop.platform.remedies.parameters import KrumMinority

VERSION = 2
NEEDS = ("f",)


def multi_krum(
    *,
    f: KrumMinority = None,
    keep: Annotated[
        int | None, Range(1, 10**6, search=(1, 20)), "number of rows kept, m; none: n - f"
    ] = None,
) -> Defense:
    """The rows with the smallest scores keep their weights."""

    def chosen(updates: Updates) -> Updates:
        order, assumed = robust.krum_order(updates.rows, f)
        return select(updates, order[: max(keep or len(order) - assumed, 1)])

    return stateless(chosen, scope="coordinates")
