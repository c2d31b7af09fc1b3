"""Spectral signatures: rows go whose models' representations of a class stick out along the
direction of largest spread.

R_i = mean of what the last layer of model i is given for the root set's inputs of a class
M = rows R_i - mean_j R_j,   v = top right singular vector of M,   τ_i = ((R_i - mean_j R_j) · v)²
the 1.5 ε n rows with the largest τ go

Shapes: rows (n, d) → (n, d); removed rows get weight 0.

Source: B. Tran, J. Li, A. Mądry, "Spectral Signatures in Backdoor Attacks", NeurIPS 2018, algorithm
1.

Deviations: the paper looks at training samples, and removes those that one model represents unlike
the others of their class. A server never sees the clients' training samples, only their models. So
the scores are here of models, not of samples: each model is represented by the mean of its
representations of clean root samples of one class, and rows are removed, not samples. There is one
score per class; to compare classes, each is divided by its sum over the rows, and a row's score is
its largest. Removed are ⌊1.5 ε n⌋ rows, at most all but one. Rows whose model gives representations
that are not finite are removed in any case, unless all are such. Sample counts weigh the kept rows.

Checked: the score and the share of 1.5 ε against public re-implementations for one model's samples;
the form over models is ours.

Needs: model calls, and the root set.

Example:
>>> import torch
>>> from backstop.platform.contract import Samples
>>> from backstop.platform.examples import server_view, updates
>>> root = Samples(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0]))
>>> view = server_view(torch.zeros(1), root=root)
>>> given = updates(torch.tensor([[0.0], [1.0], [2.0], [9.0]]))
>>> after, _ = spectral_signatures(share=0.25).apply(given, None, view)  # τ: 9, 4, 1, 36
>>> after.weight.tolist()
[1.0, 1.0, 1.0, 0.0]
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.params import Range

VERSION = 2
NEEDS = ("model", "root")


def spectral_signatures(
    *,
    share: Annotated[
        float,
        Range(0, 0.5, search=(0.05, 0.4)),
        "assumed share of attackers, ε; 1.5 times as many rows are removed",
    ] = 0.2,
) -> Defense:
    """The rows with the smallest scores keep their weight."""

    def cleaned(updates: Updates, view: ServerView) -> Updates:
        n = len(updates.rows)
        scores = _scores(updates.rows, view)
        # ⌊1.5 ε n⌋, exactly
        worst = max(robust.floor_count(share, 3 * n) // 2, int(scores.isinf().sum()))
        return select(updates, scores.argsort(stable=True)[: max(n - worst, 1)])

    return Defense(apply=lambda updates, state, view: (cleaned(updates, view), state))


def _scores(rows: Tensor, view: ServerView) -> Tensor:
    """The largest share that a row has of a class's outlier scores (n,), float64; infinite where a
    representation is not finite.
    """
    with torch.no_grad():
        # (n, b, h)
        seen = torch.stack([view.features(view.params + row, view.root.x) for row in rows]).cpu()
    label, sound = view.root.y.cpu(), seen.isfinite().all(2).all(1)
    scores = torch.full(sound.shape, torch.inf, dtype=torch.float64)
    if sound.any():
        means = [seen[sound][:, label == one].double().mean(1) for one in label.unique()]
        scores[sound] = torch.stack([_signature(points) for points in means]).amax(0)
    return scores


def _signature(points: Tensor) -> Tensor:
    """Squared projections of centered points (n, h) on their top right singular vector, divided by
    their sum; 0 for equal points.
    """
    centered = points - points.mean(0)
    _, _, right = torch.linalg.svd(centered, full_matrices=False)
    scores: Tensor = (centered @ right[0]).square()
    return (scores / scores.sum()).nan_to_num(nan=0.0)
