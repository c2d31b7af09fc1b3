"""Centered clipping: the last aggregate moves towards each update by no more than a radius.

v <- v + 1/n Σ_i (u_i - v) · min(1, τ / ‖u_i - v‖₂),  L times

v starts from the aggregate of the round before, at first from 0.

Shapes: rows (n, d) → one merged row (1, d); history: the last aggregate v (d,).

Source: S. P. Karimireddy, L. He, M. Jaggi, "Learning from History for Byzantine Robust
Optimization", ICML 2021, algorithm 2.

Deviations: clients train as without a defense, where the paper has them send momenta of their
gradients. Sample counts are not used, as in the paper: each of n rows moves v by at most τ / n,
however many samples it claims. The radius belongs to the scale of the updates (the authors'
published experiments take 100 for momenta of gradients), so the default is only a unit, as in norm
clipping: the first round is norm clipping with a plain mean. Another common definition under this
name keeps no history and starts every round from 0.

Checked: the step and the radius of 100 against the authors' code, one round of the numbers against
ByzFL 0.0.11 (tests/defenses/test_byzfl.py).

Needs: history.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(
...     torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.0, 4.0]]), torch.ones(3), torch.arange(3)
... )
>>> centered_clipping(radius=1.0).apply(updates, torch.zeros(2), None)[0].rows
tensor([[0.3333, 0.3333]])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, merge
from backstop.platform.params import Range

VERSION = 1
NEEDS = ("history",)
GIVES = "row"
TAKES = "row"


def centered_clipping(
    *,
    radius: Annotated[
        float,
        Range(1e-6, 1e6, log=True, search=(1e-2, 1e2)),
        "farthest that one update can pull the center, τ",
    ] = 1.0,
    iterations: Annotated[
        int, Range(1, 100, search=(1, 5)), "steps of the center in a round, L"
    ] = 1,
) -> Defense[Tensor]:
    """The center after its steps."""

    def centered(updates: Updates, center: Tensor, _: ServerView) -> tuple[Updates, Tensor]:
        for _step in range(iterations):
            pull = (radius / robust.norms_around(updates.rows, center)).clamp(max=1.0) / len(
                updates.rows
            )
            towards = robust.mix(pull.unsqueeze(0), updates.rows)[0]
            center = center * (1 - pull.sum()).float() + towards
        return merge(updates, center), center

    return Defense(init=lambda view: torch.zeros_like(view.params), apply=centered)
