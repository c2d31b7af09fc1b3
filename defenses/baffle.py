"""BaFFLe: clients vote on the next global model, which is refused where enough of them see it err
in other classes than the models before it did.

e_y(G) = (#{x : y is its label, G errs},  #{x : G says y, wrongly})   on the client's own data
v_i = e(G_i-1) - e(G_i) of the last accepted models G_0 … G_ℓ, v of the next one G
φ_i = LOF_k(v_i; v_1 … v_i-1),   k = ⌈ℓ/2⌉,   τ = mean of φ_i, ⌈3ℓ/4⌉ <= i <= ℓ
a client refuses G: LOF_k(v; v_1 … v_ℓ) > c τ;   the round is refused: q of n voters refuse G

Shapes: rows (n, d) → (n, d); in a refused round all weights become 0 and the model stays as it is.
State: the last models (at most ℓ + 1, d).

Source: S. Andreina, G. A. Marson, H. Möllering, G. Karame, "BaFFLe: Backdoor Detection via
Feedback-based Federated Learning", ICDCS 2021, algorithms 1 and 2; ℓ = 20 and q = 5 of 10 voters
are those of its experiments (remembered).

Deviations: the tolerance c, 1 in the paper (remembered): in federations of a few hundred samples a
client every other honest vote is above the mean of its own past factors, which are all about 1, and
once a round is refused its successors are too; with 1.5, where scikit-learn's outliers begin, three
of ten honest voters refuse at most, and nearly all a model with a backdoor. Only clients vote: in
the paper the server may be one more voter. It begins with a stable model and its history; here all
is accepted until five models are there, and those there are count until it is long. Errors are
counts, not shares of the client's samples: no factor tells them apart by such a scale. Voters are
drawn from all clients in every round; where there are fewer than n of them, all vote and the same
share q/n is asked. A model whose output is not finite errs.

Checked: against nothing: there is no public code of its authors (remembered).

Needs: clients that score models, here ℓ + 2 of them, of which all but the last may be kept from
earlier rounds; history.

Example:
>>> import torch
>>> from dataclasses import replace
>>> from backstop.platform.examples import server_view, updates
>>> defense, state = baffle(), None
>>> still, wild = torch.tensor([[0.1, -0.1]]), torch.tensor([[-9.0, 9.0]])
>>> state = defense.init(server_view())
>>> params = torch.tensor([-1.0, 1.0])  # right for x = 1, label 1
>>> for row in (still, still, still, still, still, -30 * wild):
...     view = server_view(params)
...     after, state = defense.apply(updates(row), state, view)
...     params = params + after.weight[0] * row[0]
>>> after.weight
tensor([0.])
"""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import ClientView, Defense, Question, ServerView, Updates
from backstop.platform.params import Range
from backstop.platform.remedies.outliers import local_outlier_factor

NEEDS = ("history", "validation")
TAKES = "row"
EXEMPT = ("adversarial",)  # a first round is accepted

_FEWEST = 5  # models to begin with: of fewer no factor is left to compare with
_ROUNDING = 1e-9  # of factors that should be equal


def baffle(
    *,
    history: Annotated[
        int,
        Range(_FEWEST - 1, 100, search=(4, 30)),
        "steps between accepted models that a new one is compared with, ℓ",
    ] = 20,
    voters: Annotated[
        int, Range(1, 10_000, log=True, search=(5, 50)), "clients asked in a round, n"
    ] = 10,
    quorum: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.1, 0.9)),
        "share of the voters that refuses a round, q/n",
    ] = 0.5,
    tolerance: Annotated[
        float,
        Range(0, 1e3, search=(1.0, 5.0)),
        "factor on the mean of past outlier factors above which a client refuses, c",
    ] = 1.5,
) -> Defense[Tensor]:
    """All rows, or none where enough clients refuse what they make together."""

    def voted(updates: Updates, past: Tensor, view: ServerView) -> tuple[Updates, Tensor]:
        past = _recent(past, view.params, history + 1)
        if len(past) < _FEWEST:
            return updates, past
        models = torch.cat([past, _next_model(updates, view)[None]])
        nobody = torch.full((len(models),), -1)
        votes = view.validate(
            Question(models, nobody, partial(_vote, tolerance), 0.0, 1.0), voters
        ).scores[:, -1, 0]
        refusing = int((votes < 0.5).sum())
        if refusing < robust.ceil_count(quorum, len(votes)):
            return updates, past
        return updates._replace(weight=torch.zeros_like(updates.weight)), past

    return Defense(init=lambda view: view.params.new_zeros(0, len(view.params)), apply=voted)


def _recent(past: Tensor, model: Tensor, most: int) -> Tensor:
    """The last models with the present one behind them, unless it is the last of them."""
    if len(past) and torch.equal(past[-1], model):
        return past
    return torch.cat([past, model[None]])[-most:]


def _next_model(updates: Updates, view: ServerView) -> Tensor:
    """The model (d,) that the rows would make."""
    share = (updates.weight.double() / updates.weight.double().sum()).unsqueeze(0)
    return view.params + view.server_lr * robust.mix(share, updates.rows)[0]


def _vote(tolerance: float, models: Tensor, view: ClientView, _: int) -> Tensor:
    """1 for accepted models (ℓ + 1, d) and for one more behind them, 0 where that is refused."""
    errors = torch.stack([_errors(model, view) for model in models])
    steps = errors[:-1] - errors[1:]
    count, near = len(steps) - 1, ceil((len(steps) - 1) / 2)
    usual = [
        local_outlier_factor(steps[i], steps[:i], near)
        for i in range(max(ceil(3 * count / 4) - 1, 2), count)
    ]
    votes = torch.ones(len(models), 1)
    limit = tolerance * sum(usual) / len(usual)
    factor = local_outlier_factor(steps[-1], steps[:-1], near)
    votes[-1] = float(factor <= limit * (1 + _ROUNDING))
    return votes


def _errors(model: Tensor, view: ClientView) -> Tensor:
    """How often a model errs for each label, and for each label that it says (2 classes,)."""
    with torch.no_grad():
        logits = view.model(model, view.data.x)
    said = logits.argmax(1).where(logits.isfinite().all(1), -1)
    wrong = said != view.data.y
    missed = view.data.y[wrong].bincount(minlength=view.classes)
    claimed = said[wrong & (said >= 0)].bincount(minlength=view.classes)
    return torch.cat([missed, claimed]).cpu()
