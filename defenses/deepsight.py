"""DeepSight: clusters of similar models are removed where many members learned few labels; the
others are clipped.

E_k,i = |Δb_k,i| + Σ_j |ΔW_k,ij|,   NEUP_k,i = E_k,i² / Σ_l E_k,l²
TE_k = #{i : NEUP_k,i > max(0.01, 1/P) · max_l NEUP_k,l},   k is suspicious: TE_k <= median(TE) / 2
DDif_k,i = 1/M Σ_m f(w_k, s_m)_i / f(w, s_m)_i   for random inputs s_m
distance = mean of 1[NEUP clusters differ], 1[DDif clusters differ], 1[cosine clusters differ]
k is kept: #suspicious in its cluster / #cluster < 1/3
u_k <- u_k · min(1, median_l ‖u_l‖ / ‖u_k‖)

with P output neurons of weights W and biases b, softmax outputs f, and HDBSCAN for all clusterings;
that of DDif is done for three sets of inputs, whose mean counts.

Shapes: rows (n, d) → (n, d), clipped; rows of removed clusters get weight 0.

Source: P. Rieger, T. D. Nguyen, M. Miettinen, A.-R. Sadeghi, "DeepSight: Mitigating Backdoor
Attacks in Federated Learning Through Deep Model Inspection", NDSS 2022, sections on filtering
metrics, ensemble clustering and poisoned cluster identification.

Deviations: sample counts weigh the kept rows, the paper takes their plain mean. M is 256 where the
paper takes 20,000, because a round evaluates 3 M inputs on each of the n models. Random images are
uniform in [0, 1], table features uniform between the smallest and the largest value in the root
set. Where the output layer has no bias, the cosines compare its weights. HDBSCAN's clusters have at
least three members, and there may be a single one; a row's density is its distance to the third
nearest other row, which scikit-learn, unlike the package hdbscan that published codes use, calls
four samples, since it counts the row itself (a re-implementation, in the code of BackdoorIndicator,
has one other row, and clusters of five). An outlier of a clustering is in no cluster: it differs
from every other row, and in the end its own label decides. If everything would be removed, the rows
with TE >= median(TE) are kept. Rows whose model gives outputs that are not finite are removed.
Another common definition takes the ratios of outputs before the softmax.

Checked: thresholds and clustering against re-implementations; there is no public code of its
authors (remembered).

Needs: model calls, and inputs of the root set for their shape and range; no labels.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> view = server_view(torch.zeros(4))
>>> signs = torch.tensor(
...     [[1.0, 1.0, 1.0, -1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, 1.0], [1.0, -1.0, 1.0, 1.0]]
... )
>>> rows = torch.cat([signs, signs, torch.tensor([[9.0, 0.0, 0.0, 0.0]])])
>>> after, _ = deepsight(samples=8).apply(updates(rows), None, view)
>>> after.weight, after.rows[8]  # the last one learned a single label
(tensor([1., 1., 1., 1., 1., 1., 1., 1., 0.]), tensor([2., 0., 0., 0.]))
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.params import Range
from backstop.platform.remedies import clusters
from backstop.platform.remedies.noise import noise_inputs

VERSION = 2
NEEDS = ("model", "root")
KINDS = ("image", "table")

_SETS = 3  # of random inputs
_BATCH = 512  # inputs in a model call
_LARGEST = 104.0  # logarithm of the largest ratio: a score below exp(-104) is 0 in float32


def deepsight(
    *,
    samples: Annotated[
        int,
        Range(1, 20_000, log=True, search=(64, 4096)),
        "random inputs in each of the three sets, M",
    ] = 256,
) -> Defense:
    """Rows of clusters with few suspicious members keep their weight; all are clipped to the median
    norm.
    """

    def filtered(updates: Updates, view: ServerView) -> Updates:
        rows, last = updates.rows, view.head[-1]
        energy = _energies(rows, view)  # (n, P)
        exceeding = (energy > max(0.01, 1 / energy.shape[1]) * energy.amax(1, keepdim=True)).sum(1)
        ratios = _ratios(rows, view, samples)  # (3, n, classes)
        broken = ~ratios.isfinite().all(2).all(0)
        exceeding = exceeding.where(~broken, -1).double()
        middle = exceeding.quantile(0.5)
        by_ratio = [_apart(_euclidean(one.where(one.isfinite(), 0.0))) for one in ratios]
        by_cosine = _apart(robust.cosine_distances(rows[:, last.span]).cpu())
        by_energy = _apart(_euclidean(energy))
        together = _together((by_energy + torch.stack(by_ratio).mean(0) + by_cosine) / 3)
        suspicious = exceeding <= middle / 2
        kept = (3 * (together & suspicious).sum(1) < together.sum(1)) & ~broken
        clipped = updates._replace(rows=robust.clip(rows, robust.norms(rows).quantile(0.5)))
        return select(clipped, kept if kept.any() else exceeding >= middle)

    return Defense(apply=lambda updates, state, view: (filtered(updates, view), state))


def _energies(rows: Tensor, view: ServerView) -> Tensor:
    """Normalized squared update energies of the output neurons (n, P), float64; zero for a row that
    leaves the layer alone.
    """
    total = torch.zeros((), dtype=torch.float64)
    for slot in view.head:
        piece = rows[:, slot.span].reshape(len(rows), slot.shape[0], -1)
        total = total + piece.abs().sum(2, dtype=torch.float64).cpu()
    squares = (total / total.amax(1, keepdim=True)).nan_to_num(nan=0.0).square()
    # the largest square is 1 or all are 0
    return squares / squares.sum(1, keepdim=True).clamp_min(1.0)


def _ratios(rows: Tensor, view: ServerView, samples: int) -> Tensor:
    """Mean ratios of the local models' scores to the global model's (3, n, classes), float64; not
    finite where a model's output is not.
    """
    ratios = []
    with torch.no_grad():
        for x in [noise_inputs(view.root.x, samples, view.generator) for _ in range(_SETS)]:
            base = _scores(view, view.params, x)
            each = [_scores(view, view.params + row, x) - base for row in rows]
            ratios.append(torch.stack([one.clamp(max=_LARGEST).exp().mean(0) for one in each]))
    return torch.stack(ratios).cpu()


def _scores(view: ServerView, params: Tensor, x: Tensor) -> Tensor:
    """Logarithms of the softmax outputs."""
    return torch.cat(
        [view.model(params, piece).double().log_softmax(1) for piece in x.split(_BATCH)]
    )


def _euclidean(points: Tensor) -> Tensor:
    """Distances of all pairs of a few short vectors, float64."""
    return (points.unsqueeze(1) - points).square().sum(2).sqrt()


def _apart(distance: Tensor) -> Tensor:
    """1 for two rows that are not in one cluster, 0 for the others."""
    return (~_together(distance)).double()


def _together(distance: Tensor) -> Tensor:
    """Which rows are in one cluster of HDBSCAN, from their distances (n, n) → (n, n) bool. An
    outlier is alone.
    """
    if len(distance) < 3:
        return torch.eye(len(distance), dtype=torch.bool)
    label = clusters.hdbscan(distance, smallest=3, samples=min(3 + 1, len(distance)))
    return ((label[:, None] == label) & (label >= 0)).fill_diagonal_(True)
