"""MoNNA: the mean of the n - f rows nearest to an update that the server trusts, its own.

u_0 = local training on the root set,   S = the n - f rows with the smallest ‖u_i - u_0‖
g = Σ_{i in S} w_i u_i / Σ_{i in S} w_i

Shapes: rows (n, d) → (n, d); the weights of f rows become 0.

Source: S. Farhadkhani, R. Guerraoui, N. Gupta, L. N. Hoang, R. Pinot, J. Stephan, "Robust
Collaborative Learning with Linear Gradient Overhead", ICML 2023, nearest-neighbor averaging.

Deviations: the paper has no server: each node averages the vectors nearest to its own, which it
trusts. Here the server is the one trusted node, its vector the update that it trains on its root
set. That is a yardstick only and no part of the mean. The momentum of the paper is the clients'
(their optimizer). Sample counts weight the mean, where the paper's is plain. Ties go to the smaller
client id. Another common definition trusts one of the rows, whoever sent it.

Checked: the mean of the nearest against ByzFL 0.0.11 (tests/defenses/test_byzfl.py): equal for one
trusted row.

Needs: a root set whose training moves the model as honest clients do.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> given = updates(torch.tensor([[0.0], [1.0], [1.5], [90.0]]))
>>> view = server_view(update=torch.tensor([2.0]))
>>> monna(f=2).apply(given, None, view)[0].weight.tolist()
[0.0, 1.0, 1.0, 0.0]
"""

from __future__ import annotations

from typing import Any

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.remedies.parameters import Minority, attackers

VERSION = 1
NEEDS = ("f", "root")


def monna(
    *,
    f: Minority = None,
) -> Defense:
    """The rows nearest to the server's own update keep their weight."""

    def apply(updates: Updates, state: Any, view: ServerView) -> tuple[Updates, Any]:
        n = len(updates.rows)
        assumed = attackers(f, n)
        apart = robust.norms_around(updates.rows, view.train(view.params, view.root))
        return select(updates, apart.argsort(stable=True)[: n - assumed]), state

    return Defense(apply=apply)
