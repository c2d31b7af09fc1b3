"""MARS: of two clusters of the largest channel energies the one with less energy is kept.

e_l,k = σ_max(W_l,k) · |γ_l,k| / √(σ²_l,k + 1e-5)   for channel k of layer l
E_i = the largest 5 % of the e_l,k of each layer l of client i's model, sorted
K = the cluster of 2-means on E_1 … E_n whose center is smaller; all where W(center, center') <= ε

with W_l,k the weights of channel k (inputs by pixels of the filter; of a linear layer one row),
σ_max their largest singular value, γ and σ² the weight and the running variance of the BatchNorm
layer behind, where there is one, else 1. The energy bounds how much a channel can make of a
trigger. 2-means on sorted values is 2-means by the Wasserstein distance of order 2; W is that of
order 1.

Shapes: rows (n, d) → (n, d), unchanged; those of the other cluster get weight 0.

Source: W. Wan, Y. Ning, Z. Huang, C. Hong, S. Hu, Z. Zhou, Y. Zhang, T. Zhu, W. Zhou, L. Y. Zhang,
"MARS: A Malignity-Aware Backdoor Defense in Federated Learning", NeurIPS 2025, sections on backdoor
energy, concentrated backdoor energy and clustering; 5 % and ε = 0.03 are its settings for CIFAR-10.

Deviations: the code in secretflow compares histograms of 50 bins of each client's own range, takes
them by their heights, clusters the rows of that distance matrix with k-means from drawn starts, and
has ε = 1; here the energies themselves are compared. That code has one energy for a linear layer
(here one for each output), and lists the BatchNorm layers once more by themselves (here only one
that follows no weights). At least one channel of a layer counts. Sample counts weigh the kept rows.
Variances below 0, which no honest client sends, count as 0.

Checked: energies, share of the channels and choice of the cluster against secretflow's agg_mars.py,
to which an author contributed. The paper's text was out of reach beyond its abstract and its
reviews, from which the settings are.

Known to fail: against a backdoor whose channels are not the strongest, such as one of a patch on
part of a batch without a factor; the energies of honest clients differ as much then, and with
ε = 0.03 some cluster is thrown out in every round.

Needs: a model with BatchNorm.

Example:
>>> import torch
>>> from dataclasses import replace
>>> from backstop.platform.contract import Slot
>>> from backstop.platform.examples import batch_norm, server_view, updates
>>> buffers = batch_norm(torch.zeros(3, 2), torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.01]]))
>>> layout = (Slot("weight", 0, (2,)),)  # of the BatchNorm layer
>>> view = replace(server_view(torch.ones(2)), layout=layout, buffers=buffers)
>>> mars().apply(updates(torch.ones(3, 2)), None, view)[0].weight
tensor([1., 1., 0.])
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Slot, Updates, select
from backstop.platform.params import Range
from backstop.platform.remedies.clusters import two_means

VERSION = 1
NEEDS = ("buffers",)
TAKES = "clients"

_EPS = 1e-5  # of BatchNorm


def mars(
    *,
    share: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.01, 0.3)),
        "share of each layer's channels that counts",
    ] = 0.05,
    epsilon: Annotated[
        float,
        Range(0, 1e6, search=(0.01, 1)),
        "distance of the two centers up to which all are kept, ε",
    ] = 0.03,
) -> Defense:
    """Clients whose models have the smaller channel energies keep their weight."""

    def filtered(updates: Updates, view: ServerView) -> Updates:
        sent = view.buffers.of(updates.client)
        pairs = zip(updates.rows, sent, strict=True)
        energies = torch.stack([_concentrated(view, row, own, share) for row, own in pairs])
        second = two_means(energies)
        if not second.any():
            return updates
        center, other = energies[~second].mean(0), energies[second].mean(0)
        if (center - other).abs().mean() <= epsilon:
            return updates
        return select(updates, ~second if center.sum() <= other.sum() else second)

    return Defense(apply=lambda updates, state, view: (filtered(updates, view), state))


def _concentrated(
    view: ServerView,
    row: Tensor,
    sent: Tensor,
    share: float,
) -> Tensor:
    """The largest energies of the layers of one client's model (k,), ascending, float64."""
    params = (view.params + row).double().cpu()
    largest = []
    for energy in _energies(view, params, sent.double().cpu()):
        count = robust.floor_count(share, len(energy) - 1) + 1
        largest.append(energy.topk(count).values)
    return torch.cat(largest).sort().values


def _energies(view: ServerView, params: Tensor, sent: Tensor) -> Iterator[Tensor]:
    """The energies of the channels (c,), layer after layer."""
    variances = {
        slot.name.removesuffix("running_var"): slot.of(sent)
        for slot in view.buffers.layout
        if slot.name.endswith("running_var")
    }
    waiting: Tensor | None = None  # energies whose BatchNorm layer may be the next
    for slot in view.layout:
        variance = variances.get(slot.name.removesuffix("weight"))
        if len(slot.shape) > 1:
            if waiting is not None:
                yield waiting
            waiting = _spectral(slot, params)
        elif variance is not None and slot.name.endswith("weight"):
            scale = slot.of(params).abs() / (variance.clamp_min(0) + _EPS).sqrt()
            fits = waiting is not None and len(waiting) == len(scale)
            yield waiting * scale if waiting is not None and fits else scale
            waiting = None if fits else waiting
    if waiting is not None:
        yield waiting


def _spectral(slot: Slot, params: Tensor) -> Tensor:
    """The largest singular value of each output's weights (c,)."""
    weights = slot.of(params)
    if weights.ndim == 2:
        return weights.square().sum(1).sqrt()
    matrices = weights.flatten(2)
    if matrices.shape[1] < matrices.shape[2]:
        matrices = matrices.transpose(1, 2)
    squares = matrices.transpose(1, 2) @ matrices
    largest: Tensor = torch.linalg.eigvalsh(squares)[:, -1]
    return largest.clamp_min(0).sqrt()
