"""FLDetector: clients whose updates their earlier ones do not predict are excluded, and training
starts over without them.

The prediction follows the curvature of the model:

û_i,t = u_i,r + H (w_t - w_r),   u_i,r: the client's last update
H = L-BFGS({w_k - w_k-1}, {g_k - g_k-1}) over the last N rounds
e_i,t = ‖u_i,t - û_i,t‖ / mean_j ‖u_j,t - û_j,t‖,   s_i = mean of the client's last N values of e

If the gap statistic of s finds more than one cluster, then of the two clusters of 2-means the one
with the larger mean is malicious: its clients stay excluded, and the model returns to w_0.

gap(k) = ln(mean_b W_k,b) - ln(W_k),   slack(k) = √(1 + 1/B) · std_b(ln W_k,b)
more than one: gap(1) < gap(2) - slack(2)

with W_k the sum of squares around the k centers of the scores, scaled to [0, 1], and W_k,b that of
B = 10 sets of uniform draws; g_k the aggregate of round k, (w_k+1 - w_k) / η, and L-BFGS in its
compact form: S, Y the columns w_k - w_k-1 and g_k - g_k-1, D and L the diagonal and the part below
it of SᵀY, σ = y'ᵀs' / s'ᵀs' of the last pair:

H v = σ v - [σS Y] [[σSᵀS, L], [Lᵀ, -D]]⁻¹ [σS Y]ᵀ v

Shapes: rows (n, d) → (n, d); excluded clients get weight 0; in the round of the detection all rows
lead back to w_0. History: the last update (d,) of each client seen in the last N + 1 rounds, N + 1
steps of the global model (d,), N numbers for each client: with 100 clients and N = 10 the memory of
112 models.

Source: Z. Zhang, X. Cao, J. Jia, N. Z. Gong, "FLDetector: Defending Federated Learning Against
Model Poisoning Attacks via Detecting Malicious Clients", KDD 2022, sections on prediction,
suspicious scores and detection; R. H. Byrd, J. Nocedal, R. B. Schnabel, "Representations of
Quasi-Newton Matrices and Their Use in Limited Memory Methods", Mathematical Programming 63, 1994;
R. Tibshirani, G. Walther, T. Hastie, "Estimating the Number of Clusters in a Data Set via the Gap
Statistic", JRSS B 63, 2001.

Deviations: the paper's clients send gradients in every round; here they send updates and take
turns. An update is a multiple of a gradient and L-BFGS scales with g, so nothing else changes.
History goes by client: the prediction starts from the client's own last update and the model w_r of
that round. A client that is new, or whose last update is more than N + 1 rounds old, is not scored
in that round and keeps its weight. e is relative to the mean, where the paper divides by the sum:
so rounds of different size compare. Scores are judged once N rounds have been scored, over all
clients that have one. The authors' code stops at the first detection; the paper restarts the
training without the detected clients, which is done here: from w_0, with empty history and no
scores, and without another detection. With ``again`` the restarted training is watched in the same
way, and restarts at every detection. The authors' code scores after round 20 (CIFAR-10) or 50
(MNIST, FEMNIST), counted from 0; the default is the first. A run must be longer than ``warm`` + N
rounds for anything to happen, and what is left after the detection is all the training there is.
BatchNorm statistics are not set back, they follow the restarted model within a few rounds. A round
of excluded clients only moves nothing: its rows become zero. 2-means is exact. Only whether there
is more than one cluster matters, so no more than two are looked at. L-BFGS leaves out directions
below 1e-5 of the largest, which are rounding.

Checked: against the authors' train_cifar.py, train_mnist.py and train_femnist.py (first scored
round, ten draws of the gap statistic, its logarithm of the mean, one detection). The restart is the
paper's; the authors' code has none.

Needs: history, and each row from one client.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> defense, w, state = fldetector(window=2, warm=0), torch.tensor([8.0]), None
>>> # each honest client moves half of the way to 0; client 3 jumps about, which shows in round 3
>>> for t in range(4):
...     rows = torch.tensor([[-0.5], [-0.5], [-0.5], [(-1.0) ** t]]) * w
...     view = server_view(w)
...     after, state = defense.apply(updates(rows), state or defense.init(view), view)
...     w = w + after.rows[:3].mean(0)
>>> after.weight, w
(tensor([1., 1., 1., 0.]), tensor([8.]))
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.params import Range

VERSION = 2
NEEDS = ("history",)
TAKES = "clients"
EXEMPT = ("adversarial",)  # in a first round there is nothing to predict from

_DRAWS = 10  # of the gap statistic


class _State(NamedTuple):
    first: Tensor  # (d,) the initial model
    params: Tensor  # (d,) the global model of the last round
    steps: Tensor  # (k, d) how it moved from round to round, the latest last
    last: dict[int, tuple[int, Tensor]]  # client → the round of its last update, the update (d,)
    errors: dict[int, tuple[float, ...]]  # client → its latest values of e
    scored: int  # rounds with errors since the beginning or the last restart
    round: int  # since then
    excluded: frozenset[int]
    restart: bool  # the next round starts from the initial model
    watching: bool  # for another detection


def fldetector(
    *,
    window: Annotated[
        int, Range(1, 100, search=(2, 20)), "rounds that the curvature and the scores look back, N"
    ] = 10,
    warm: Annotated[
        int, Range(0, 10**6, search=(0, 50)), "last round that is not scored yet, counted from 0"
    ] = 20,
    again: Annotated[
        bool, "watch the restarted training, too, and restart at every detection"
    ] = False,
) -> Defense[_State]:
    """The clients that were never found malicious keep their weights."""

    def init(view: ServerView) -> _State:
        return fresh(view.params, frozenset(), restart=False, watching=True)

    def fresh(first: Tensor, excluded: frozenset[int], *, restart: bool, watching: bool) -> _State:
        steps = first.new_zeros(0, len(first))
        return _State(first, first, steps, {}, {}, 0, -1, excluded, restart, watching)

    def send(state: _State, view: ServerView) -> tuple[Tensor, _State]:
        """Exactly the initial model, whatever later stages made of the rows that lead there."""
        return (state.first if state.restart else view.params), state._replace(restart=False)

    def kept(updates: Updates, excluded: frozenset[int]) -> Updates:
        good = torch.tensor([client not in excluded for client in updates.client.tolist()])
        if not good.any():
            return updates._replace(rows=torch.zeros_like(updates.rows))
        return select(updates, good)

    def detected(updates: Updates, state: _State, view: ServerView) -> tuple[Updates, _State]:
        if not state.watching:
            return kept(updates, state.excluded), state
        now, clients = state.round + 1, updates.client.tolist()
        step = (view.params - state.params).nan_to_num()
        steps = torch.cat([state.steps[-window:], step.unsqueeze(0)]) if now else state.steps
        rows = {
            client: row
            for client, row in zip(clients, updates.rows, strict=True)
            if client not in state.excluded
        }
        ages = {client: now - state.last[client][0] for client in rows if client in state.last}
        errors, scored, excluded = state.errors, state.scored, state.excluded
        if len(steps) > 1 and ages and now > warm:
            changes = _changes(steps, sorted(set(ages.values())), view.server_lr)
            apart = {
                client: _length(rows[client] - state.last[client][1] - changes[age])
                for client, age in ages.items()
            }
            mean = sum(apart.values()) / len(apart)
            latest = {
                client: (*errors.get(client, ()), error / mean if mean else 1.0)[-window:]
                for client, error in apart.items()
            }
            errors, scored = {**errors, **latest}, scored + 1
        if scored >= window:
            means = torch.tensor(
                [sum(values) / len(values) for values in errors.values()], dtype=torch.float64
            )
            upper = _upper_cluster(means, view.generator)
            malicious = [client for client, is_upper in zip(errors, upper, strict=True) if is_upper]
            if malicious:
                excluded = excluded.union(malicious)
                back = ((state.first - view.params) / view.server_lr).nan_to_num()
                after = kept(updates, excluded)._replace(rows=back.expand_as(updates.rows).clone())
                return after, fresh(state.first, excluded, restart=True, watching=again)
        last = {**state.last, **{client: (now, row.clone()) for client, row in rows.items()}}
        last = {
            client: kept
            for client, kept in last.items()
            if client not in excluded and now - kept[0] <= window
        }
        watched = state._replace(
            params=view.params, steps=steps, last=last, errors=errors, scored=scored, round=now
        )
        return kept(updates, excluded), watched

    return Defense(init, detected, send=send)


def _length(row: Tensor) -> float:
    return float(robust.norms(row.nan_to_num().unsqueeze(0)))


def _changes(steps: Tensor, ages: list[int], server_lr: float) -> dict[int, Tensor]:
    """H (w_t - w_t-age) for each age. S, Y and the results are sums of steps: all but the last sum
    needs only their inner products.
    """
    count = len(steps)
    unit = torch.eye(count, dtype=torch.float64)
    s, y = unit[:-1], unit[1:] - unit[:-1]
    moved = torch.stack([unit[count - age :].sum(0) for age in ages])
    inner = robust.products(steps).cpu()
    sy, ss = s @ inner @ y.T, s @ inner @ s.T
    sigma = sy[-1, -1] / ss[-1, -1] if ss[-1, -1] else torch.zeros(())
    low = sy.tril(-1)
    middle = torch.cat([torch.cat([sigma * ss, low], 1), torch.cat([low.T, -sy.diag().diag()], 1)])
    sides = torch.cat([sigma * s, y])
    weights = sigma * moved - moved @ inner @ sides.T @ torch.linalg.pinv(middle, rtol=1e-5) @ sides
    return dict(zip(ages, robust.mix(weights / server_lr, steps).nan_to_num(), strict=True))


def _upper_cluster(scores: Tensor, generator: torch.Generator) -> list[bool]:
    """Which scores are in the upper one of two clusters, if the gap statistic sees two."""
    if len(scores) < 3 or scores.max() == scores.min():
        return [False] * len(scores)
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    one, two, split = _spread(scaled.unsqueeze(0))
    draws = torch.rand(_DRAWS, len(scores), generator=generator, dtype=torch.float64)
    drawn_one, drawn_two, _ = _spread(draws)
    slack = drawn_two.log().std(correction=0) * (1 + 1 / _DRAWS) ** 0.5
    bound = scaled.sort().values[split - 1]
    several = _gap(one, drawn_one) < _gap(two, drawn_two) - slack  # one cluster is not enough
    return [bool(several and score > bound) for score in scaled]


def _gap(spread: Tensor, drawn: Tensor) -> Tensor:
    """How much tighter than draws of one crowd the scores are: the logarithm of the draws' mean
    spread (b,) against theirs (1,).
    """
    return drawn.mean().log() - spread.log()


def _spread(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of squares (b,) of values (b, m) around one center and around the best two, and the size
    of the lower cluster.
    """
    m = values.shape[1]
    ordered = values.sort(1).values
    ordered = ordered - ordered.mean(1, keepdim=True)
    size = torch.arange(1, m)
    between, split = (ordered.cumsum(1)[:, :-1].square() * m / (size * (m - size))).max(1)
    around = ordered.square().sum(1)
    return around, (around - between).clamp_min(1e-30), split + 1
