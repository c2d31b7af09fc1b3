"""FLShield: clients say how much each update, with a little of those like it, lowers the loss of
each class on their data; the half that harms some class most is left out.

t_ij = ReLU(cos(u_i, u_j)) · min(1, ‖u_i‖ / ‖u_j‖)
r_i = (1 - α) u_i + α Σ_j≠i t_ij u_j / Σ_j≠i t_ij
I_v,i,c = mean of L(G, x) - L(G + r_i, x) over client v's samples x of class c
V = larger of two clusters of the voters' I_v by 2-means,   s_i = min_c mean_v∈V I_v,i,c
u_i is kept: s_i among the ⌈n/2⌉ largest;   u_i <- u_i · min(1, median_j ‖u_j‖ / ‖u_i‖)

Shapes: rows (n, d) → (n, d), clipped; rows that are left out get weight 0.

Source: E. Kabir, Z. Song, M. R. Ur Rashid, S. Mehnaz, "FLShield: A Validation Based Federated
Learning Framework to Defend Against Poisoning Attacks", IEEE S&P 2024, in its bijective form, one
representative for each client; α = 0.25, the clipping, thirty samples of a class at most and the
half are those of the authors' published code.

Deviations: sample counts weigh the kept rows, that code takes their plain mean. An impact on a
class of which a voter has no sample is the mean of the other voters': that code imputes it by an
iterative regression on other impacts. A class of which no voter has a sample does not count. Where
no other row points the same way, r_i is u_i: that code divides 0 by 0. 2-means starts from each
voter and the one farthest from it, in that code from two at random; a loss counts 1,000,000 at
most. All clients of the round vote; only the first samples of a class count where there are more
than thirty.

Checked: representatives, impacts, filter, selection and clipping against the authors' code
(ehsanul9511/FLShield); its other form, clusters of updates by their cosines, is not here.

Needs: clients that score models, each all n of them.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> given = updates(torch.tensor([[-1.0, 1.0], [-1.0, 0.5], [9.0, -9.0]]))  # x = 1 is of class 1
>>> flshield().apply(given, None, server_view())[0].weight
tensor([1., 1., 0.])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform import robust
from backstop.platform.contract import ClientView, Defense, Question, ServerView, Updates, select
from backstop.platform.params import Range
from backstop.platform.remedies.clusters import two_means

NEEDS = ("validation",)
TAKES = "clients"

_EACH = 30  # samples of a class, the first ones
_LARGEST = 1e6  # loss, also of a model without finite output


def flshield(
    *,
    others: Annotated[
        float,
        Range(0, 1, high_open=True, search=(0.0, 0.5)),
        "share of the others in what stands for an update, α",
    ] = 0.25,
) -> Defense:
    """The half of the rows whose worst impact on a class is best, clipped to the median norm."""

    def shielded(updates: Updates, view: ServerView) -> Updates:
        rows, norms = updates.rows, robust.norms(updates.rows)
        models = view.params + robust.mix(_shares(rows, norms, others), rows)
        answers = view.validate(Question(models, updates.client, _impacts), updates.client)
        worth = _worth(answers.scores.cpu())
        best = worth.argsort(descending=True, stable=True)[: len(rows) - len(rows) // 2]
        clipped = updates._replace(rows=robust.clip(rows, norms.quantile(0.5)))
        return select(clipped, best)

    return Defense(apply=lambda updates, state, view: (shielded(updates, view), state))


def _shares(rows: Tensor, norms: Tensor, others: float) -> Tensor:
    """The share of each row in what stands for each row (n, n); equal rows have one and the same
    that does.
    """
    alike = (1 - robust.cosine_distances(rows).double()).clamp_min(0).fill_diagonal_(0)
    alike *= (norms[:, None] / norms).nan_to_num(nan=0.0).clamp(max=1.0)
    total = alike.sum(1, keepdim=True)
    taken = others * (total > 0)
    shares = alike / total.where(total > 0, 1.0) * taken
    shares.diagonal().copy_(1 - taken[:, 0])
    return shares[(robust.distances(rows) == 0).int().argmax(1)]


def _impacts(models: Tensor, view: ClientView, _: int) -> Tensor:
    """By how much each model lowers the loss of each class, beside whether there are samples of the
    class (n, 2 classes).
    """
    here = view.data.y == torch.arange(view.classes, device=view.data.y.device)[:, None]
    taken = (here & (here.cumsum(1) <= _EACH)).double()  # (classes, samples)
    count = taken.sum(1)
    before = _losses(view.params, view)
    impacts = [taken @ (before - _losses(model, view)) / count.clamp_min(1) for model in models]
    return torch.stack([torch.cat([impact, (count > 0).double()]) for impact in impacts])


def _losses(model: Tensor, view: ClientView) -> Tensor:
    """The loss of each sample, float64."""
    with torch.no_grad():
        logits = view.model(model, view.data.x).double()
    losses = cross_entropy(logits, view.data.y, reduction="none")
    return losses.nan_to_num(nan=_LARGEST, posinf=_LARGEST).clamp(max=_LARGEST)


def _worth(scores: Tensor) -> Tensor:
    """The worst impact (n,) of each model on a class, after the larger group of voters. scores (m,
    n, 2 classes).
    """
    impact, there = scores.chunk(2, dim=2)
    there = there > 0.5
    mean = (impact * there).sum(0) / there.sum(0).clamp_min(1)
    filled = impact.where(there, mean)
    trusted = filled[~two_means(filled.flatten(1))].mean(0)
    return trusted.where(there.any(0), torch.inf).amin(1)
