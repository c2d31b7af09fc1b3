"""SparseFed: clipped updates are averaged, and only the largest coordinates of what has gathered are let through.

e <- e + Σ_i w_i u_i · min(1, L / ‖u_i‖₂);   g = top_k(e);   e <- e - g;   w_i: share of the sample count

Shapes: rows (n, d) → one merged row (1, d) with at most k coordinates; history: the error memory e (d,), at first 0.

Source: A. Panda, S. Mahloujifar, A. N. Bhagoji, S. Chakraborty, P. Mittal, "SparseFed: Mitigating Model Poisoning Attacks in
Federated Learning with Sparsification", AISTATS 2022, the algorithm of its section on SparseFed.

Deviations: no server momentum, which the paper has as an option. k is given as a share of the parameters and rounded up; of equally
large coordinates the first go through. The norm is only a unit, as in norm clipping, and the share a middle way between the dense
update and the few coordinates that suit large models: both depend on the model. Another definition under this name forgets e in
each round and clips nothing.

Needs: history.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[0.5, 0.0], [3.0, 4.0]]), torch.ones(2), torch.arange(2))
>>> sparsefed(norm=1.0, share=0.5).apply(updates, torch.zeros(2), None)  # the mean is (0.55, 0.4)
(Updates(rows=tensor([[0.5500, 0.0000]]), weight=tensor([2.]), client=tensor([-1])), tensor([0.0000, 0.4000]))
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, merge
from backstop.platform.params import Range

VERSION = 2
NEEDS = ("history",)
GIVES = "row"
TAKES = "row"
EXEMPT = ("identical",)  # only the largest coordinates go through


def sparsefed(
    *,
    norm: Annotated[float, Range(1e-6, 1e6, log=True, search=(1e-2, 1e2)), "largest Euclidean norm that is kept, L"] = 1.0,
    share: Annotated[float, Range(0, 1, low_open=True, search=(1e-3, 0.5)), "share of the parameters that move in a round, k / d"] = 0.1,
) -> Defense:
    """The largest coordinates of memory and mean; the others stay in memory."""

    def largest(updates: Updates, memory: Tensor, _: ServerView) -> tuple[Updates, Tensor]:
        weight = (updates.weight / updates.weight.sum()).unsqueeze(0)
        gathered = memory + robust.mix(weight, robust.clip(updates.rows, norm))[0]
        k, size = robust.ceil_count(share, len(gathered)), gathered.abs()
        least = size.kthvalue(len(size) - k + 1).values
        sent, tied = size > least, size == least
        sent |= tied & (tied.cumsum(0) <= k - sent.sum())
        row = gathered.where(sent, 0.0)
        return merge(updates, row), gathered - row

    return Defense(init=lambda view: torch.zeros_like(view.params), apply=largest)
