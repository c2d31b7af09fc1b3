"""FLARE: models whose inner representations of the same inputs are near those of many other models
are trusted.

R_i: what the last layer of model i is given for m inputs (m, h)
MMD²(R_i, R_j) = w(R_i) + w(R_j) - 2 mean_{a,b} k(R_i,a, R_j,b),   w(R) = mean_{a≠b} k(R_a, R_b)
C_i = #{j : R_i is among the ⌊n/2⌋ - 1 nearest of the others for j}
TS_i = exp(C_i / (τ · mean_j C_j)) / Σ_k exp(C_k / (τ · mean_j C_j)),   g = Σ_i TS_i u_i

Shapes: rows (n, d) → (n, d); the weights are the trust scores.

Source: N. Wang, Y. Xiao, Y. Chen, Y. Hu, W. Lou, Y. T. Hou, "FLARE: Defending Federated Learning
against Model Poisoning Attacks via Latent Space Representations", ASIA CCS 2022, section on the
trust evaluation; counts, temperature and inputs are those of the authors' code (detect.py).

Deviations: sample counts do not matter, as in the paper; the weight of the round is dealt out by
trust, so trusted clients may end up with more than they brought. The kernel is Gaussian. That of
the authors' code is exp(-‖x - y‖² / h), scikit-learn's default, with h the number of features;
``width=median`` takes the median squared distance over all pairs of the round in place of h, so
that all discrepancies are on one scale however large the features are. That code sets negative
discrepancies, which the estimate without its diagonal has for models that are alike, to 0, and
breaks the ties by place; here they keep their order. The inputs are those of one class, 200 of
class 1 in that code: here as many as the root set has of them, up to ``samples``, of the class of
which it has most. Fewer than four rows have no votes and equal trust. Rows whose model gives
representations that are not finite neither vote nor are trusted; where all are such, the weights
stay.

Checked: against the authors' detect.py and utils/mmd.py: counts, trust, kernel, inputs.

Needs: model calls, and inputs of one class of the root set.

Example:
>>> import torch
>>> # the mean is 2: no votes leave e^-1.5 of what three give
>>> _trust(torch.tensor([2.0, 3.0, 3.0, 0.0]), 1.0)
tensor([0.2143, 0.3534, 0.3534, 0.0789])
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates
from backstop.platform.params import Range

VERSION = 2
NEEDS = ("model", "root")


def flare(
    *,
    samples: Annotated[
        int,
        Range(1, 1000, log=True, search=(5, 200)),
        "inputs of one class that are looked at, at most, m",
    ] = 200,
    voting: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.2, 0.8)),
        "share of the rows, itself and one more counted, that each row votes for",
    ] = 0.5,
    temperature: Annotated[
        float,
        Range(1e-3, 1e3, log=True, search=(0.1, 10)),
        "votes, in means, that change the trust by a factor e, τ",
    ] = 1.0,
    width: Annotated[
        Literal["features", "median"],
        (
            "squared width of the kernel: the number of features, or the pairs' median squared "
            "distance"
        ),
    ] = "features",
) -> Defense:
    """All rows, weighted by the votes for them."""

    def trusted(updates: Updates, view: ServerView) -> Updates:
        inputs = _of_one_class(view, samples)
        with torch.no_grad():
            # (n, m, h)
            seen = torch.stack([view.features(view.params + row, inputs) for row in updates.rows])
        sound = seen.isfinite().all(2).all(1)
        if not sound.any():
            return updates
        trust = torch.zeros(sound.shape, dtype=torch.float64, device=sound.device)
        trust[sound] = _trust(_votes(_discrepancies(seen[sound], width), voting), temperature)
        return updates._replace(weight=(trust * updates.weight.double().sum()).float())

    return Defense(apply=lambda updates, state, view: (trusted(updates, view), state))


def _of_one_class(view: ServerView, samples: int) -> Tensor:
    """The first ``samples`` inputs of the root set with the label that most of them have, the
    smallest of several.
    """
    label = view.root.y.long().bincount().argmax()
    return view.root.x[(view.root.y == label).nonzero()[:samples, 0]]


def _discrepancies(seen: Tensor, width: str) -> Tensor:
    """Squared maximum mean discrepancies of all pairs of samples. seen (n, m, h) → (n, n) float64,
    the diagonal without meaning.
    """
    n, m, h = seen.shape
    squared = robust.distances(seen.flatten(0, 1))
    scale = _middle(squared) if width == "median" else h
    kernel = (-squared / scale).exp().reshape(n, m, n, m)
    across = kernel.mean((1, 3))
    # without the m pairs of a sample with itself, for which k = 1
    within = (across.diagonal() * m - 1) / max(m - 1, 1)
    return within[:, None] + within - 2 * across


def _middle(squared: Tensor) -> Tensor | float:
    """The median squared distance of two different samples, the lower of two middle ones."""
    pairs = squared[~torch.eye(len(squared), dtype=torch.bool, device=squared.device)]
    return pairs.median().clamp_min(torch.finfo(torch.float64).tiny) if len(pairs) else 1.0


def _trust(votes: Tensor, temperature: float) -> Tensor:
    """The trust (n,) that sums to 1; equal where nobody has a vote."""
    mean = votes.mean()
    if not mean:
        return torch.full_like(votes, 1 / len(votes))
    return (votes / (temperature * mean)).softmax(0)


def _votes(apart: Tensor, share: float) -> Tensor:
    """How many others each row is among the nearest ⌊share · n⌋ - 1 for. apart (n, n) → (n,)
    float64; ties go to the first.
    """
    count = max(robust.floor_count(share, len(apart)) - 1, 0)
    nearest = apart.clone().fill_diagonal_(torch.inf).argsort(dim=1, stable=True)[:, :count]
    return nearest.flatten().bincount(minlength=len(apart)).double()
