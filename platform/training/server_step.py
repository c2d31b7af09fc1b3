"""What the server makes of a round's rows: one function for an experiment, and for who brings rows
from elsewhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Defense, ServerView, Shares
from backstop.platform.training.matrix import Defended, Matrix
from backstop.platform.training.mean import finite_rows, weighted_mean


class ServerStep(NamedTuple):
    """A round's step of the server."""

    defended: Defended
    sent: Shares  # before the defense
    changes: Tensor  # (n, e) of the floating-point buffers

    @property
    def kept(self) -> Tensor:
        """How much each client that sent a row counts (n,), 0 where the defense left it nothing."""
        shares = self.defended.shares
        row = torch.searchsorted(self.sent.client, shares.client)
        return torch.zeros_like(self.sent.weight).index_add(0, row, shares.weight)

    @property
    def change(self) -> Tensor:
        """That of the global buffers (e,)."""
        if not self.changes.shape[1]:
            return self.changes.new_zeros(0)
        return weighted_mean(self.changes, self.kept)

    def moved(self, params: Tensor, server_lr: float) -> Tensor:
        """The global parameters (d,) after it."""
        return params + self.defended.aggregate * server_lr

    def moved_buffers(self, buffers: Tensor) -> Tensor:
        """The global buffers (e,) after it."""
        return buffers + self.change if len(buffers) else buffers


def keep_finite(matrix: Matrix, changes: Tensor) -> Tensor:
    """Leave out the rows of clients that sent a NaN or an infinity, be it among the changes (n, e)
    of their buffers. (n,) bool: whose row is left.
    """
    finite = matrix.finite() & finite_rows(changes)
    matrix.keep(finite)
    return finite


def server_step(
    matrix: Matrix,
    sent: Shares,
    changes: Tensor,
    defense: Defense,
    memory: Any,
    view: ServerView,
) -> ServerStep:
    """Defend rows, of one client at least, and average them. A client's changes of buffers (n, e)
    count as much as the defense lets the client count.
    """
    seeing = with_buffers(view, sent.client, changes)
    return ServerStep(matrix.defended(sent, defense, memory, seeing), sent, changes)


def with_buffers(
    view: ServerView,
    client: Tensor,
    changes: Tensor,
) -> ServerView:
    """The view once the clients (n,) have sent these changes of their buffers (n, e)."""
    fields = vars(view)  # nothing of it is looked at: a view may lack some
    buffers = fields["buffers"]._replace(client=client, changes=changes)
    return type(view)(**{**fields, "buffers": buffers})
