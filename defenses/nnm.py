"""NNM: nearest neighbor mixing, every row becomes the mean of the n - f rows nearest to it.

N_i = the n - f rows with the smallest ‖u_j - u_i‖, u_i included
y_i = Σ_{j in N_i} w_j u_j / Σ_{j in N_i} w_j

Shapes: rows (n, d) → n mixtures (n, d), each with the weight of the row in its middle.

Source: Y. Allouah, S. Farhadkhani, R. Guerraoui, N. Gupta, R. Pinot, J. Stephan, "Fixing by Mixing:
A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS 2023 (PMLR 206), nearest neighbor
mixing.

Deviations: sample counts weight the means, where the paper's are plain; with f = 0 every mixture is
the weighted mean. Ties go to the smaller client id. It is meant to stand before a robust
aggregator: alone it leaves attackers their share of the final mean.

Checked: the numbers against ByzFL 0.0.11 (tests/defenses/test_byzfl.py): equal without sample
counts.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[0.0], [1.0], [3.0]]), torch.ones(3), torch.arange(3))
>>> nnm(f=1).apply(updates, None, None)[0].rows.tolist()
[[0.5], [0.5], [2.0]]
"""

from __future__ import annotations

import torch

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, stateless
from backstop.platform.remedies.parameters import Minority, attackers

VERSION = 2
NEEDS = ("f",)
GIVES = "mixtures"


def nnm(
    *,
    f: Minority = None,
) -> Defense:
    """As many mixtures as rows."""

    def mixed(updates: Updates) -> Updates:
        n = len(updates.rows)
        assumed = attackers(f, n)
        squared = robust.distances(updates.rows)
        nearest = squared.argsort(dim=1, stable=True)[:, : n - assumed]
        given = updates.weight.to(squared)
        shares = torch.zeros_like(squared).scatter(1, nearest, given[nearest])
        mixtures = robust.mix(shares / shares.sum(1, keepdim=True), updates.rows)
        return Updates(mixtures, updates.weight, torch.full_like(updates.client, -1))

    return stateless(mixed, scope="coordinates")
