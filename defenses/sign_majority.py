"""Majority vote of signs (signSGD): each update has one vote a coordinate, the majority gives the
direction.

g = δ · sign(Σ_i sign(u_i))

Shapes: rows (n, d) → one merged row (1, d).

Source: J. Bernstein, J. Zhao, K. Azizzadenesheli, A. Anandkumar, "signSGD with Majority Vote is
Communication Efficient and Fault Tolerant", ICLR 2019, algorithm 1.

Deviations: the votes are the signs of whole local updates, where the paper has those of momenta of
gradients. The paper's step δ is a learning rate of its own with a schedule; without ``step`` it is
here the median over the rows of ‖u_i‖₂ / √d, so that a vote without ties is as long as a typical
update and the server's learning rate means the same for every defense. Sample counts are not used:
a client has one vote. A tied coordinate stays.

Checked: the vote against its formula in NumPy; the schedule of the paper's step is remembered.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(
...     torch.tensor([[1.0, 7.0], [0.5, 1.0], [-90.0, 0.0]]), torch.ones(3), torch.arange(3)
... )
>>> sign_majority(step=0.1).apply(updates, None, None)[0].rows
tensor([[0.1000, 0.1000]])
>>> sign_majority().apply(updates, None, None)[0].rows  # norms 1.1, 7.1 and 90
tensor([[5., 5.]])
"""

from __future__ import annotations

from math import sqrt
from typing import Annotated

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, merge, stateless
from backstop.platform.params import Range

VERSION = 1
GIVES = "row"
EXEMPT = ("identical",)  # a vote keeps no magnitudes


def sign_majority(
    *,
    step: Annotated[
        float | None,
        Range(0, 1e6, low_open=True, search=(1e-4, 1e-1)),
        "how far each coordinate moves, δ; none: the median of the rows' root mean squares",
    ] = None,
) -> Defense:
    """The sign of the sum of signs, times the step."""

    def vote(updates: Updates) -> Updates:
        rows, size = updates.rows, step
        if size is None:
            size = (robust.norms(rows).quantile(0.5) / sqrt(robust.length(rows))).item()
        return merge(updates, robust.sign_sum(rows).sign_() * size)

    return stateless(vote, scope="coordinates")
