"""FLANDERS: the local models that a matrix autoregression over the last rounds forecasts least well
are left out.

Θ_t = [θ_1,t … θ_m,t],   Θ_t ≈ A Θ_t-1 B
A, B = argmin Σ_t ‖Θ_t - A Θ_t-1 B‖²_F + λ ‖A‖²_F + λ ‖B‖²_F
s_i = ‖θ_i,t - (A Θ_t-1 B)_i‖²;   the m - f rows with the smallest s_i are kept

θ are local models of the round's m clients at k coordinates; A and B come from alternating least
squares over the last rounds.

Shapes: rows (n, d) → (n, d); the weights of the others become 0. History: k numbers for each client
kept in one of the last rounds.

Source: E. Gabrielli, D. Belli, Z. Matrullo, V. Miori, G. Tolomei, "Protecting Federated Learning
from Extreme Model Poisoning Attacks via Multidimensional Time Series Anomaly Detection", 2023
(arXiv 2303.16668), sections on the MAR model and the anomaly score; the random choice of 500
coordinates is that of its experiments.

Deviations: a matrix has a column for each client of the present round. Where a client did not take
part, or was left out, its column is the global model with which that round ended: the paper does so
for clients found malicious, since the forecast would learn from them. With one past round, the
window of the authors' experiments, the forecast is that round's matrix: there is no step to fit A
and B to (their code fits the matrix to itself). In the first round nothing is left out, as in that
code; with ``early`` its forecast is the global model. B starts from the identity and three sweeps
are made, where that code starts at random and makes a hundred. For λ the models are scaled to mean
square 1, as a whole and without a shift, so that the forecast applies to them as they are. Without
``f`` a minority is left out, the largest f with 2f < m. Sample counts weigh the kept rows.

Checked: against the authors' strategy.py in Flower's baselines: first filtered round, order of the
sweeps, number of rows kept; and what they are run with for the window.

Needs: history, each row from one client, and the assumed number of attackers f.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> given = updates(torch.tensor([[1.0], [1.5], [-4.0]]))
>>> view = server_view(torch.zeros(1))
>>> defense = flanders(f=1, early=True)
>>> after, state = defense.apply(given, defense.init(view), view)
>>> after.weight, sorted(state.rounds[0].models)  # the first forecast is the global model
(tensor([1., 1., 0.]), [0, 1])
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.params import Range
from backstop.platform.remedies.parameters import Minority, attackers

VERSION = 2
NEEDS = ("history", "f")
TAKES = "clients"
EXEMPT = ("adversarial",)  # in a first round there is nothing to forecast from


class _Round(NamedTuple):
    start: Tensor  # (k,) the global model at the round's beginning, float64
    models: dict[int, Tensor]  # client kept → its model (k,), float64


class _State(NamedTuple):
    coordinates: Tensor  # (k,)
    rounds: tuple[_Round, ...]


def flanders(
    *,
    f: Minority = None,
    window: Annotated[
        int, Range(1, 1000, search=(3, 30)), "past rounds that the forecast is made from"
    ] = 1,
    sampled: Annotated[
        int, Range(1, 2000, log=True, search=(50, 1000)), "random coordinates that are forecast, k"
    ] = 500,
    ridge: Annotated[
        float, Range(1e-6, 1e6, log=True, search=(1e-2, 1e2)), "weight of the squares of A and B, λ"
    ] = 1.0,
    sweeps: Annotated[int, Range(1, 1000, search=(1, 10)), "alternations of the least squares"] = 3,
    early: Annotated[
        bool, "filter the first round, too, by the distance to the global model"
    ] = False,
) -> Defense[_State]:
    """The rows with the smallest scores keep their weights."""

    def init(view: ServerView) -> _State:
        order = torch.randperm(len(view.params), generator=view.generator)
        return _State(order[:sampled].sort().values, ())

    def filtered(updates: Updates, state: _State, view: ServerView) -> tuple[Updates, _State]:
        n, clients = len(updates.rows), updates.client.tolist()
        where = state.coordinates.to(updates.rows.device)
        now = view.params[where].nan_to_num().double().cpu()
        models = now + updates.rows[:, where].double().cpu()
        # a round ends where the next one begins
        ends = [*(each.start for each in state.rounds[1:]), now]
        past = [
            torch.stack([each.models.get(i, end) for i in clients])
            for each, end in zip(state.rounds, ends, strict=False)
        ]
        forecast = past[0] if past else now
        if len(past) > 1:
            forecast = _forecast(torch.stack(past), ridge, sweeps)
        assumed = attackers(f, n) if past or early else 0
        chosen = (models - forecast).square().sum(1).argsort(stable=True)[: n - assumed]
        this = _Round(now, {clients[i]: models[i].clone() for i in chosen.tolist()})
        return select(updates, chosen), state._replace(rounds=(*state.rounds, this)[-window:])

    return Defense(init, filtered)


def _forecast(models: Tensor, ridge: float, sweeps: int) -> Tensor:
    """What follows the last of (t, m, k) matrices with rows for clients: B Θ A, with B (m, m) and A
    (k, k).
    """
    (_, m, k), last = models.shape, models[-1]
    scaled = models / models[:-1].square().mean().sqrt().clamp_min(1e-300)
    before, after = scaled[:-1], scaled[1:]
    by_client = after.transpose(0, 1).reshape(m, -1)
    eye_m, eye_k = torch.eye(m, dtype=torch.float64), torch.eye(k, dtype=torch.float64)
    a, b = eye_k, eye_m
    for _ in range(sweeps):
        moved = (b @ before).reshape(-1, k)
        a = torch.linalg.solve(moved.T @ moved + ridge * eye_k, moved.T @ after.reshape(-1, k))
        moved = (before @ a).transpose(0, 1).reshape(m, -1)
        b = torch.linalg.solve(moved @ moved.T + ridge * eye_m, moved @ by_client.T).T
    forecast: Tensor = b @ last @ a
    return forecast
