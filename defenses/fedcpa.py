"""FedCPA: updates count as far as their most and least important weights are those of the others
and of the last global step.

a_i = |u_i ∘ (w + u_i)|,   a_0 = |(w - w') ∘ w|,   w' = the global model of the round before
T_i, B_i = places of the k largest and of the k smallest entries of a_i
σ(X, Y) = |X ∩ Y| / |X ∪ Y| + (1 + Pearson correlation of a_i and a_j on X ∩ Y) / 2
s_ij = (σ(T_i, T_j) + σ(B_i, B_j)) / 2,   s_ii = 1
z_i = mean_j s_ij + s_i0, scaled to [0.01, 0.99],   v_i = ln(z_i / (1 - z_i)) + 0.5 within [0, 1]
g = plain mean of v_i u_i over {i : v_i > 0}

Shapes: rows (n, d) → (n, d), times v, with equal weights; those with v = 0 get weight 0. History:
one global model (d,). Biases and other vectors have no importance.

Source: S. Han, S. Park, F. Wu, S. Kim, B. Zhu, X. Xie, M. Cha, "Towards Attack-Tolerant Federated
Learning via Critical Parameter Analysis", ICCV 2023, critical parameters, model similarity and
attack-tolerant aggregation; k = 0.01 d and the correlation are those of the authors' published
code.

Deviations: in the first round that code takes the mean of the local models for w and w for w'; here
the mean update is the global step then, and local importance is as in every round. At least one
weight is critical; of equally important ones the first are. A correlation that is not defined,
which is NaN in that code, counts as 0. Similarities count to nine decimals; where all are equal,
v = 1 for all. Without a tensor of two axes or more every parameter counts as a weight.

Known to fail: importance has no sign, so that the opposite of an honest update looks honest. In
small models one weight in a hundred is few.

Checked: importance, sets, similarity, its mean with 1 for the row itself, scaling and weights
against the authors' code (FEDCPA, defense_utils.py at ec43803). The paper's text was out of reach;
whether it correlates ranks is not known.

Needs: history.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> rows = torch.tensor([[4.0, 3, 2, 1], [4, 3.5, 2, 1], [5, 3, 2.5, 1], [1, 2, 3, 9]])
>>> defense, view = fedcpa(share=0.5), server_view(torch.zeros(4))
>>> after, last = defense.apply(updates(rows), defense.init(view), view)
>>> after.weight[3], last  # other weights are important to the last one
(tensor(0.), tensor([0., 0., 0., 0.]))
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, equal_weights, select
from backstop.platform.params import Range

VERSION = 1
NEEDS = ("history",)

_ROUNDING = 1e-9  # far above that of float64


class _Critical(NamedTuple):
    """Places (k,), ascending, and the importance of the weights there (k,)."""

    place: Tensor
    importance: Tensor


def _weights(view: ServerView) -> Tensor:
    """The coordinates of the tensors with two axes or more; all, where there are none."""
    slots = [slot for slot in view.layout if len(slot.shape) > 1] or view.layout
    return torch.cat([torch.arange(slot.start, slot.start + slot.size) for slot in slots])


def _critical(step: Tensor, model: Tensor, share: float) -> tuple[_Critical, _Critical]:
    """The most and the least important weights of a model (d,) after a step (d,)."""
    importance = (step * model).abs()
    count = max(robust.floor_count(share, len(importance)), 1)
    chosen = []
    for descending in (True, False):
        order = importance.argsort(stable=True, descending=descending)
        place = order[:count].sort().values
        chosen.append(_Critical(place, importance[place]))
    return chosen[0], chosen[1]


def _similarity(one: _Critical, other: _Critical) -> float:
    """Jaccard's index of the places, and the correlation of importance where they meet."""
    here = one.importance[torch.isin(one.place, other.place)]
    there = other.importance[torch.isin(other.place, one.place)]
    index = len(here) / (len(one.place) + len(other.place) - len(here))
    return index + (1 + _correlation(here, there)) / 2


def _both(one: tuple[_Critical, _Critical], other: tuple[_Critical, _Critical]) -> float:
    """The similarity at the top and at the bottom."""
    return (_similarity(one[0], other[0]) + _similarity(one[1], other[1])) / 2


def _correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's; 0 where one of the two does not vary."""
    if len(one) < 2:
        return 0.0
    apart = [values - values.mean() for values in (one, other)]
    lengths = [values.norm() for values in apart]
    # far above rounding
    if any(
        size <= 1e-9 * values.norm() for size, values in zip(lengths, (one, other), strict=True)
    ):
        return 0.0
    return float((apart[0] @ apart[1]) / (lengths[0] * lengths[1]))


def _trust(similarity: Tensor) -> Tensor:
    """Factors v (n,) from the similarities z (n,) before they are scaled."""
    total = similarity.round(decimals=9)
    span = total.amax() - total.amin()
    if not span:
        return torch.ones_like(total)
    scaled = (total - total.amin()) / span
    scaled = scaled.where(scaled > 0, 0.01).where(scaled < 1, 0.99)
    return (torch.logit(scaled) + 0.5).clamp(0, 1)


def fedcpa(
    *,
    share: Annotated[
        float,
        Range(0, 0.5, low_open=True, search=(1e-3, 0.1), log=True),
        "share of the weights that are critical, at the top and at the bottom, k / d",
    ] = 0.01,
) -> Defense[Tensor | None]:
    """All rows by their trust; those with none lose their weight."""

    def weighed(
        updates: Updates, last: Tensor | None, view: ServerView
    ) -> tuple[Updates, Tensor | None]:
        rows, where = updates.rows, _weights(view).to(updates.rows.device)
        model = view.params[where].double()
        steps = [row[where].double() for row in rows]
        each = [_critical(step, model + step, share) for step in steps]
        mean = sum(steps, torch.zeros_like(model)) / len(steps)
        if last is None:
            common = _critical(mean, model + mean, share)
        else:
            common = _critical(model - last[where].double(), model, share)
        alike = torch.ones(len(rows), len(rows), dtype=torch.float64)
        for i, one in enumerate(each):
            for j, other in enumerate(each[:i]):
                alike[i, j] = alike[j, i] = _both(one, other)
        alone = torch.tensor([_both(one, common) for one in each], dtype=torch.float64)
        trust = _trust(alike.mean(1) + alone).to(rows.device)
        trusted = updates._replace(rows=robust.times(rows, trust.float().unsqueeze(1)))
        return equal_weights(select(trusted, trust > 0)), view.params.clone()

    return Defense(init=lambda view: None, apply=weighed)
