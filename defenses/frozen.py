"""Frozen: the server never moves the model. A reference, not a method.

g = 0

No backdoor gets in and nothing is learned, so on a model that is trained already its attack success
is the natural one at no cost. Whatever ranks beside it has not shown that it is better than
standing still: leaderboards show it without a rank, like FedAvg at the other end.

Shapes: rows (n, d) → (n, d), all zero; weights stay.

Source: of this project.

Deviations: a model with BatchNorm keeps its parameters, but its running statistics follow the
clients' as under FedAvg, since nobody loses weight.

Checked: by hand, and in rounds in this project's tests.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 2.0]), torch.arange(2))
>>> frozen().apply(updates, None, None)[0].rows.tolist()
[[0.0], [0.0]]
"""

from __future__ import annotations

import torch

from backstop.platform.contract import Defense, Updates, stateless

VERSION = 1
EXEMPT = ("identical",)  # of the laws in tests/laws/test_defenses.py: rows that agree move nothing


def frozen() -> Defense:
    """No row moves anything."""

    def still(updates: Updates) -> Updates:
        return updates._replace(rows=torch.zeros_like(updates.rows))

    return stateless(still, scope="coordinates")
