"""Snowball: updates elect few of them, by layer those that share their cluster, and the elected let
in, step by step, what an autoencoder of their differences knows best, until half are in.

Bottom-up, for each row i and layer l:
C_il = the cluster of i by k-means, started from i and the rows that are farthest from it
h_il = Calinski-Harabasz score of that clustering, scaled over i to [0, 1]
votes_j = Σ_l Σ_{i : j in C_il} h_il,   E = the ⌈s n⌉ rows with the most votes
Top-down, while |E| < ⌊M n⌋:
φ <- a variational autoencoder trained on sigmoid(u_i - u_j) of all i ≠ j in E
o_k = mean over i in E and both signs of ‖φ(x) - x‖² at x = sigmoid(± (u_i - u_k)),   k not in E
E <- E and the ⌈M_E n⌉ rows with the smallest o_k;   g = mean of u_j over E

Shapes: rows (n, d) → (n, d); all others get weight 0. The layers that vote, and that the
autoencoder is given, are the first and the last tensor with two axes or more.

Source: Z. Qin, F. Chen, C. Zhi, X. Yan, S. Deng, "Resisting Backdoor Attacks in Federated Learning
via Bidirectional Elections and Individual Perspective", AAAI 2024, both elections; s = 0.1, ten of
fifty rows as starting points, M = 0.5, M_E = 0.05, E_VI = 270 passes before the first step and
E_VT = 30 before each are those of the authors' published code.

Deviations: ``joined=0`` leaves the second election out, as an ablation of theirs does
(snowball_minus). It begins in the first round; theirs after 25 to 100 rounds, by data set
(``after``). Of ten rows one is elected, and one has no differences, so that two begin the second
election. The autoencoder is 64 wide with 16 latent values, for theirs 256 and 64 (``hidden``), and
is given at most 256 values of each row, evenly thinned, so that it costs little on a processor;
E_VT is a ninth of E_VI, as in both of their settings. All rows of a step meet the same ten draws.
Rows equal to one of the elected are not compared with it, as there; equal to all, they come first.
The number of starting points is given as a share of the rows, and is never above n - 2, so that
there is a score. That code names its layers (the first convolution and the last linear layer; of
CIFAR-10's network all linear ones), whose biases vote and are compared, too. A cluster that loses
all its rows is gone, where scikit-learn would give it the farthest one. A score that is not defined
counts as 0; where all scores of a layer are equal all count as 1. Votes and errors, these in units
of their mean, count to nine decimals, and the smaller client id wins a tie.

Known to fail: the tightest cluster has the highest score, so that attackers whose rows are more
alike than those of honest clients elect each other, and then let in each other.

Cost: with ten rows 390 steps of the autoencoder in a round, with fifty 6,600.

Checked: starting points, k-means, scores, their scaling, votes and elected rows against the
authors' code (Snowball, fl_core/anti_poison/snowball.py and snowball_minus.py at 5f9d9de), and so
the autoencoder, its loss and initial values, batches of 8, Adam at its defaults, which pairs it is
trained and asked on, and how many rows join. The paper's text was out of reach.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> rows = torch.tensor([[1.0, 0.0], [1.1, 0.0], [1.0, 0.1], [1.1, 0.1], [-3.0, 2.0], [5.0, -4.0]])
>>> after, _ = snowball().apply(updates(rows), None, server_view())
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
from backstop.platform.remedies import variational

VERSION = 2

_STEPS = 300  # of k-means, as scikit-learn's
_INPUTS = 256  # of the autoencoder, at most
_NARROWER, _SHORTER, _DRAWS = 4, 9, 10
_ROUNDING = 1e-12  # share of the spread that may be a rounding error


def _layers(view: ServerView) -> list[Slot]:
    """The first and the last tensor with two axes or more; of all, where there are none."""
    slots = [slot for slot in view.layout if len(slot.shape) > 1] or list(view.layout)
    return slots[:1] + slots[1:][-1:]


def _seen(rows: Tensor, slots: list[Slot]) -> Tensor:
    """What the autoencoder is given of rows: their voting layers, evenly thinned where they are
    long.
    """
    both = torch.cat([rows[:, slot.span] for slot in slots], 1)
    count = min(both.shape[1], _INPUTS)
    places = torch.arange(count, device=rows.device) * both.shape[1] // count
    return both[:, places].double().cpu()


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


def _top_down(
    seen: Tensor,
    elected: list[int],
    wanted: int,
    step: int,
    passes: tuple[int, int],
    hidden: int,
    draws: torch.Generator,
) -> list[int]:
    """The elected rows, and those that join them until so many are in; of rows (n, p)."""

    def differences() -> Tensor:
        among = seen[elected]
        apart = among[:, None] - among
        return apart[~torch.eye(len(among), dtype=torch.bool)].sigmoid()

    first, later = passes
    network = variational.untrained(seen.shape[1], hidden, max(hidden // _NARROWER, 1), draws)
    network = variational.trained(network, differences(), first, draws)
    while len(elected) < wanted:
        network = variational.trained(network, differences(), later, draws)
        noise = torch.randn(_DRAWS, network.latent, generator=draws, dtype=torch.float64)
        rest = [row for row in range(len(seen)) if row not in elected]
        odd = torch.stack([_oddness(network, seen[elected] - seen[row], noise) for row in rest])
        relative = odd / odd.mean().clamp_min(torch.finfo(odd.dtype).tiny)
        order = relative.round(decimals=9).argsort(stable=True)
        elected = elected + [rest[i] for i in order[: min(step, wanted - len(elected))].tolist()]
    return elected


def _oddness(
    network: variational.Autoencoder,
    apart: Tensor,
    noise: Tensor,
) -> Tensor:
    """How badly the autoencoder knows a row's differences (k, p) from the elected, both ways."""
    apart = apart[apart.any(1)]
    if not len(apart):
        return apart.new_zeros(())
    return variational.errors(network, torch.cat([apart, -apart]).sigmoid(), noise).mean()


def snowball(
    *,
    elected: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.05, 0.5)),
        "share of the rows that the first election keeps, s",
    ] = 0.1,
    far: Annotated[
        float,
        Range(0, 1, search=(0.05, 0.5)),
        "share of the rows that start clusters of their own, the farthest",
    ] = 0.2,
    joined: Annotated[
        float,
        Range(0, 1, search=(0.2, 0.8)),
        "share of the rows that are in after the second election, M; 0: there is none",
    ] = 0.5,
    step: Annotated[
        float, Range(0, 1, low_open=True), "share of the rows that joins at a time, M_E"
    ] = 0.05,
    after: Annotated[int, Range(0, 10**6), "rounds that come before the second election"] = 0,
    epochs: Annotated[
        int,
        Range(1, 360, log=True),
        "first passes of the autoencoder, E_VI; a ninth of it before each step",
    ] = 270,
    hidden: Annotated[int, Range(4, 256, log=True), "its width, S_H; a quarter is latent"] = 64,
) -> Defense:
    """Elected rows keep their weight."""

    def voted(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        n, slots = len(updates.rows), _layers(view)
        count = min(max(robust.floor_count(far, n), 1), max(n - 2, 0))
        votes = torch.zeros(n, dtype=torch.float64)
        for slot in slots:
            squared = robust.distances(updates.rows[:, slot.span]).cpu()
            if count and squared.any():
                votes += _votes(squared / squared.max(), count)
        order = votes.round(decimals=9).argsort(stable=True, descending=True).tolist()
        chosen, wanted = order[: robust.ceil_count(elected, n)], robust.floor_count(joined, n)
        if view.round >= after and wanted > len(chosen):
            chosen = _top_down(
                _seen(updates.rows, slots),
                order[: max(len(chosen), 2)],
                wanted,
                robust.ceil_count(step, n),
                (epochs, max(epochs // _SHORTER, 1)),
                hidden,
                view.generator,
            )
        return select(updates, torch.tensor(chosen)), state

    return Defense(apply=voted)
