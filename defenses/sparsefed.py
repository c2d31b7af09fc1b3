"""SparseFed: clipped updates are averaged, and only the largest coordinates of what has gathered
are let through.

e <- e + 1/n Σ_i u_i · min(1, L / ‖u_i‖₂);   g = top_k(e);   e <- e - g

Shapes: rows (n, d) → one merged row (1, d) with at most k coordinates; history: the error memory e
(d,), at first 0.

Source: A. Panda, S. Mahloujifar, A. N. Bhagoji, S. Chakraborty, P. Mittal, "SparseFed: Mitigating
Model Poisoning Attacks in Federated Learning with Sparsification", AISTATS 2022, the algorithm of
its section on SparseFed.

Deviations: no server momentum, which the paper has as an option. k is given as a share of the
parameters and rounded up; of equally large coordinates the first go through. The authors let
k = 50,000 coordinates through, 0.8 % of their ResNet-9's 6.6 million (remembered); the default is a
middle way between the dense update and so few, because small models have few to spare. Their norm
is 1, as here; a useful one depends on the model. ``weights=samples`` averages by sample counts.
Another definition under this name forgets e in each round and clips nothing.

Checked: the plain mean of the clipped rows, k and L against the authors' code (sparsefed,
fed_aggregator.py).

Needs: history.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[0.5, 0.0], [3.0, 4.0]]), torch.ones(2), torch.arange(2))
>>> after, error = sparsefed(norm=1.0, share=0.5).apply(updates, torch.zeros(2), None)
>>> after.rows, after.weight, error  # the mean is (0.55, 0.4)
(tensor([[0.5500, 0.0000]]), tensor([2.]), tensor([0.0000, 0.4000]))
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, equal_weights, merge
from backstop.platform.params import Range
from backstop.platform.remedies.parameters import Counting

VERSION = 2
NEEDS = ("history",)
GIVES = "row"
TAKES = "row"
EXEMPT = ("identical",)  # only the largest coordinates go through


def sparsefed(
    *,
    norm: Annotated[
        float,
        Range(1e-6, 1e6, log=True, search=(1e-2, 1e2)),
        "largest Euclidean norm that is kept, L",
    ] = 1.0,
    share: Annotated[
        float,
        Range(0, 1, low_open=True, search=(1e-3, 0.5)),
        "share of the parameters that move in a round, k / d",
    ] = 0.1,
    weights: Counting = "equal",
) -> Defense[Tensor]:
    """The largest coordinates of memory and mean; the others stay in memory."""

    def largest(updates: Updates, memory: Tensor, _: ServerView) -> tuple[Updates, Tensor]:
        counted = equal_weights(updates) if weights == "equal" else updates
        weight = (counted.weight / counted.weight.sum()).unsqueeze(0)
        gathered = memory + robust.mix(weight, robust.clip(updates.rows, norm))[0]
        k, size = robust.ceil_count(share, len(gathered)), gathered.abs()
        least = size.kthvalue(len(size) - k + 1).values
        sent, tied = size > least, size == least
        sent |= tied & (tied.cumsum(0) <= k - sent.sum())
        row = gathered.where(sent, 0.0)
        return merge(updates, row), gathered - row

    return Defense(init=lambda view: torch.zeros_like(view.params), apply=largest)
