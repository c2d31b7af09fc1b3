"""Snowball, its bottom-up election: each update votes, layer by layer, for those that share its
cluster; few are elected.

for each row i and layer l:
C_il = the cluster of i by k-means, started from i and the rows that are farthest from it
h_il = Calinski-Harabasz score of that clustering, scaled over i to [0, 1]
votes_j = Σ_l Σ_{i : j in C_il} h_il,   g = mean of u_j over the ⌈s n⌉ rows with the most votes

Shapes: rows (n, d) → (n, d); all others get weight 0. The layers that vote are the first and the
last tensor with two axes or more.

Source: Z. Qin, F. Chen, C. Zhi, X. Yan, S. Deng, "Resisting Backdoor Attacks in Federated Learning
via Bidirectional Elections and Individual Perspective", AAAI 2024, the bottom-up election; s = 0.1
and ten of fifty rows as starting points are those of the authors' published code.

Deviations: the first half alone, which the authors' code has as an ablation of its own
(snowball_minus). The second, top-down election adds rows by a variational autoencoder on the
differences of those elected until half of all are in; without it fewer rows are averaged than in
the paper. The number of starting points is given as a share of the rows, and is never above n - 2,
so that there is a score. That code names its layers (the first convolution and the last linear
layer; of CIFAR-10's network all linear ones). A cluster that loses all its rows is gone, where
scikit-learn would give it the farthest one. A score that is not defined counts as 0; where all
scores of a layer are equal all count as 1. Votes count to nine decimals, and the smaller client id
wins a tie.

Known to fail: the tightest cluster has the highest score, so that attackers whose rows are more
alike than those of honest clients elect each other.

Checked: starting points, k-means, scores, their scaling, votes and elected rows against the
authors' code (Snowball, fl_core/anti_poison/snowball_minus.py at 5f9d9de). The paper's text was out
of reach.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> rows = torch.tensor([[1.0, 0.0], [1.1, 0.0], [1.0, 0.1], [1.1, 0.1], [-3.0, 2.0], [5.0, -4.0]])
>>> after, _ = snowball(elected=0.5).apply(updates(rows), None, server_view())
>>> after.weight[4:]
tensor([0., 0.])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Slot, Updates, select
from backstop.platform.params import Range

VERSION = 1

_STEPS = 300  # of k-means, as scikit-learn's
_ROUNDING = 1e-12  # share of the spread that may be a rounding error


def _layers(view: ServerView) -> list[Slot]:
    """The first and the last tensor with two axes or more; of all, where there are none."""
    slots = [slot for slot in view.layout if len(slot.shape) > 1] or list(view.layout)
    return slots[:1] + slots[1:][-1:]


def _to_centers(squared: Tensor, member: Tensor) -> Tensor:
    """Squared distances (n, k) of rows to the means of groups, from those of the rows (n, n) and
    who is in which group (n, k) 0 or 1; infinite for a group without members.
    """
    share = member / member.sum(0)
    within = (share * (squared @ share)).sum(0) / 2
    return (squared @ share - within).nan_to_num(nan=torch.inf)


def _clusters(squared: Tensor, starts: Tensor) -> Tensor:
    """The cluster (n,) of each row by k-means that starts from these rows (k,)."""
    label = squared[:, starts].argmin(1)
    for _ in range(_STEPS):
        member = one_hot(label, len(starts)).double()
        moved = _to_centers(squared, member).argmin(1)
        if torch.equal(moved, label):
            break
        label = moved
    return label


def _separation(squared: Tensor, label: Tensor) -> float:
    """Calinski-Harabasz: the spread of the clusters over that inside of them, each by its degrees
    of freedom.
    """
    member = one_hot(label).double()
    member = member[:, member.sum(0) > 0]
    n, k = member.shape
    if not 1 < k < n:
        return 0.0
    total = squared.sum().item() / (2 * n)
    within = (_to_centers(squared, member) * member).sum().item()
    return 1.0 if within <= _ROUNDING * total else (total - within) * (n - k) / (within * (k - 1))


def _votes(squared: Tensor, far: int) -> Tensor:
    """The votes (n,) of all rows in one layer, from their squared distances (n, n)."""
    scores, voted = [], []
    for row, distance in enumerate(squared):
        others = distance.clone()
        others[row] = -torch.inf
        farthest = others.argsort(stable=True, descending=True)[:far]
        label = _clusters(squared, torch.cat([torch.tensor([row]), farthest]))
        scores.append(_separation(squared, label))
        voted.append(label == label[row])
    score = torch.tensor(scores, dtype=torch.float64)
    span = score.amax() - score.amin()
    share = (score - score.amin()) / span if span else torch.ones_like(score)
    return share @ torch.stack(voted).double()


def snowball(
    *,
    elected: Annotated[
        float, Range(0, 1, low_open=True, search=(0.05, 0.5)), "share of the rows that is kept, s"
    ] = 0.1,
    far: Annotated[
        float,
        Range(0, 1, search=(0.05, 0.5)),
        "share of the rows that start clusters of their own, the farthest",
    ] = 0.2,
) -> Defense:
    """The rows with the most votes keep their weight."""

    def voted(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        n = len(updates.rows)
        count = min(max(robust.floor_count(far, n), 1), max(n - 2, 0))
        votes = torch.zeros(n, dtype=torch.float64)
        for slot in _layers(view):
            squared = robust.distances(updates.rows[:, slot.span]).cpu()
            if count and squared.any():
                votes += _votes(squared / squared.max(), count)
        order = votes.round(decimals=9).argsort(stable=True, descending=True)
        return select(updates, order[: robust.ceil_count(elected, n)]), state

    return Defense(apply=voted)
