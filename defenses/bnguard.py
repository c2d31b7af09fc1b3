"""BNGuard: of two clusters of the statistics of the first BatchNorm layer the larger one is kept.

s_i = (mean σ²_i, var σ²_i, mean μ_i, var μ_i),   K = the larger cluster of 2-means on s_1 … s_n

with the running means μ_i and variances σ²_i (c,) of the c channels of the first BatchNorm layer
that client i sent; mean and (unbiased) variance are over its channels.

Shapes: rows (n, d) → (n, d), unchanged; those of the smaller cluster get weight 0.

Source: J. Xu, Z. Zhang, R. Hu, "On the Out-of-Distribution Backdoor Attack for Federated Learning",
MobiHoc 2025, the section on BNGuard.

Deviations: 2-means has n fixed starts (``platform/remedies/clusters.py``), where the authors' code
draws them. Of two clusters of one size neither is smaller, and all are kept; so are all where the
statistics are equal. Otherwise the smaller cluster is left out, attack or not, as in their code:
without an attacker that is honest clients. The numbers of s are on no common scale, there as here,
so the one that varies most decides. Sample counts weigh the kept rows, as there. Of one channel the
variance is 0.

Checked: statistics, layer and choice of the cluster against the authors' aggregation.py
(SoDa-BNGuard). The paper's text was out of reach beyond its abstract.

Known to fail: against who sends honest statistics with a malicious row (``honest_buffers``), and
where a model's statistics differ more by the clients' data than by the trigger.

Needs: a model with BatchNorm.

Example:
>>> import torch
>>> from dataclasses import replace
>>> from backstop.platform.examples import batch_norm, server_view, updates
>>> mean = torch.tensor([[0.1, 0.2], [0.2, 0.1], [0.1, 0.1], [4.0, 0.0]])
>>> view = replace(server_view(), buffers=batch_norm(mean, torch.ones(4, 2)))
>>> bnguard().apply(updates(torch.ones(4, 2)), None, view)[0].weight
tensor([1., 1., 1., 0.])
"""

from __future__ import annotations

import torch
from torch import Tensor

from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.remedies.clusters import two_means

VERSION = 1
NEEDS = ("buffers",)
TAKES = "clients"


def bnguard() -> Defense:
    """Clients whose first BatchNorm statistics are in the larger cluster keep their weight."""

    def filtered(updates: Updates, view: ServerView) -> Updates:
        apart = two_means(_statistics(updates, view))
        if 2 * apart.sum() == len(apart):
            return updates
        return select(updates, ~apart)

    return Defense(apply=lambda updates, state, view: (filtered(updates, view), state))


def _statistics(updates: Updates, view: ServerView) -> Tensor:
    """Means and variances over the channels of the first layer (n, 4), float64."""
    slots = view.buffers.layout
    sent = view.buffers.of(updates.client).double().cpu()
    parts = []
    for kind in ("running_var", "running_mean"):
        first = next(slot for slot in slots if slot.name.endswith(kind))
        channels = sent[:, first.span]
        spread = channels.var(1, correction=min(1, channels.shape[1] - 1))
        parts += [channels.mean(1), spread]
    return torch.stack(parts, 1)
