"""FLTrust: updates count as far as they point where the server's own update points, all at its
length.

g_0 = LocalTraining(w, D_0),   TS_i = ReLU(cos(g_i, g_0))
g = 1/Σ_j TS_j · Σ_i TS_i · (‖g_0‖ / ‖g_i‖) g_i

Shapes: rows (n, d) → (n, d), all of length ‖g_0‖; the weights are the trust scores.

Source: X. Cao, M. Fang, J. Liu, N. Z. Gong, "FLTrust: Byzantine-robust Federated Learning via Trust
Bootstrapping", NDSS 2021, algorithm 2.

Deviations: none while some row is trusted; sample counts do not matter, as in the paper. Weights
are the trust scores times the mean sample count of the round, so that full trust leaves as much
weight as there was. Where no row is trusted the paper divides 0 by 0: here nothing moves, all rows
become zero and keep their weight. In the paper and in the authors' code the server takes as many
local iterations as a client: here the root set, in random order, is repeated, or cut, to the size
of the round's median client and trained on as that client would. Another common definition leaves
out the rescaling.

Checked: against the authors' code: the trust scores, the rescaling and the number of the server's
iterations.

Needs: the server's root set D_0.

Example:
>>> import torch
>>> from backstop.platform.contract import Samples
>>> from backstop.platform.examples import server_view, updates
>>> root = Samples(torch.zeros(5, 1), torch.zeros(5))
>>> view = server_view(root=root, update=torch.tensor([3.0, 4.0]))
>>> given = updates(torch.tensor([[12.0, 16.0], [1.25, 0.0], [-20.0, 0.0]]))
>>> after, _ = fltrust().apply(given, None, view)
>>> after.rows
tensor([[ 3.,  4.],
        [ 5.,  0.],
        [-5.,  0.]])
>>> after.weight
tensor([1.0000, 0.6000, 0.0000])
"""

from __future__ import annotations

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, Samples, ServerView, Updates

VERSION = 2
NEEDS = ("root",)
EXEMPT = ("identical",)  # rows take the length of the server's update


def fltrust() -> Defense:
    """All rows at the length of the server's update, weighted by trust."""

    def trusted(updates: Updates, view: ServerView) -> Updates:
        own = view.train(view.params, _sized(view, updates.weight))
        length, own_length = robust.norms(updates.rows), robust.norms(own.unsqueeze(0))
        cosine = robust.products_with(updates.rows, own) / (length * own_length)
        # NaN: a zero row, or an own update that is zero or not finite
        trust = cosine.nan_to_num(nan=0.0).clamp(0, 1)
        weight = (trust * updates.weight.double().mean()).float()
        if not weight.any():
            return updates._replace(rows=torch.zeros_like(updates.rows))
        root = (own_length / length).where(length > 0, 0.0).sqrt().float().unsqueeze(1)
        # in two steps: a float32 holds the root of the factor for rows of any length
        rows = updates.rows * root
        return updates._replace(rows=rows.mul_(root), weight=weight)

    return Defense(apply=lambda updates, state, view: (trusted(updates, view), state))


def _sized(view: ServerView, counts: Tensor) -> Samples:
    """The root set at the size of the client with the median of the sample counts (n,), so that as
    many steps are taken.
    """
    size = max(round(counts.double().quantile(0.5).item()), 1)
    order = torch.randperm(len(view.root.y), generator=view.generator)
    index = order.repeat(-(-size // max(len(order), 1)))[:size].to(view.root.y.device)
    return Samples(view.root.x[index], view.root.y[index])
