"""RLR, robust learning rate: where too few updates agree on the sign, the model moves the opposite
way.

η_j = η if |Σ_i sign(u_ij)| >= θ, else -η;   w_j <- w_j + η_j · mean_i(u_ij)

Shapes: rows (n, d) → (n, d), the coordinates with too little agreement negated in every row.

Source: M. S. Ozdayi, M. Kantarcioglu, Y. R. Gel, "Defending against Backdoors in Federated Learning
with Robust Learning Rate", AAAI 2021, the equation for the learning rate per dimension.

Deviations: θ is given as a share of the rows, so that it fits any cohort, and compared in exact
arithmetic. The default is the 4 of 10 of the authors' published scripts, which have 8 of 40 and 8
of 33 in other experiments: ``rlr(threshold=8/33)``. To negate a coordinate in every row negates its
mean, and also its median and every other aggregate that follows the sign, so the rule may stand in
front of those, as in that code, and rows keep their clients. sign(0) = 0 counts as no agreement.

Checked: rule and thresholds against the authors' published scripts.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(
...     torch.tensor([[1.0, 1.0], [2.0, 3.0], [3.0, -9.0]]), torch.ones(3), torch.arange(3)
... )
>>> rlr(threshold=0.5).apply(updates, None, None)[0].rows.tolist()
[[1.0, -1.0], [2.0, -3.0], [3.0, 9.0]]
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, stateless
from backstop.platform.params import Range

VERSION = 2
# where enough updates agree, the rule is the plain mean, however long the others are
EXEMPT = ("adversarial",)


def rlr(
    *,
    threshold: Annotated[
        float,
        Range(0, 1, search=(0.1, 0.9)),
        "least |mean of the signs| that keeps the direction, θ / n",
    ] = 0.4,
) -> Defense:
    """All rows, negated where they disagree."""

    def flipped(updates: Updates) -> Updates:
        direction = robust.agree(updates.rows, threshold).float() * 2 - 1
        return updates._replace(rows=robust.times(updates.rows, direction))

    return stateless(flipped, scope="coordinates")
