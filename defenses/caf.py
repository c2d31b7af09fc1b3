"""CAF: rows that stick out along the direction of largest variance lose weight until enough of it
is gone; the tightest mean counts.

c = 1;   while Σ_i c_i > n - 2f:
    μ_c, Σ_c = weighted mean and covariance,   λ, v = top eigenpair of Σ_c
    τ_i = (v·(u_i - μ_c))²,   c_i <- c_i (1 - τ_i / max_j τ_j)
g = the μ_c with the smallest λ

Shapes: rows (n, d) → (n, d), unchanged; the weights are multiplied by the c of the smallest λ.

Source: Y. Allouah, R. Guerraoui, J. Stephan, "Towards Trustworthy Federated Learning with Untrusted
Participants", ICML 2025, algorithm 2 (covariance bound-agnostic filter).

Deviations: mean and covariance weight each row by its sample count times c_i, the paper's by c_i;
the stopping rule counts rows, as in the paper. The maximum of τ is taken over rows that still have
weight: a far row that has lost all of it would go on setting the scale, and the filter would stand
still. f is at most the largest with 2f < n. The eigenvectors are exact, from the (n, n) inner
products; another common definition takes one power step from a random start.

Checked: the numbers against ByzFL 0.0.11 (tests/defenses/test_byzfl.py): equal without sample
counts. The paper's text was out of reach; algorithm 2 is cited from that library.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[0.0], [0.0], [0.0], [4.0]]), torch.ones(4), torch.arange(4))
>>> caf(f=1).apply(updates, None, None)[0].weight  # the mean is 1: τ = 1, 1, 1, 9
tensor([0.8889, 0.8889, 0.8889, 0.0000])
"""

from __future__ import annotations

import torch

from backstop.platform import robust
from backstop.platform.contract import Defense, Updates, stateless
from backstop.platform.remedies.parameters import Minority

VERSION = 2
NEEDS = ("f",)


def caf(
    *,
    f: Minority = None,
) -> Defense:
    """All rows, those that stick out with less weight."""

    def filtered(updates: Updates) -> Updates:
        n = len(updates.rows)
        most = (n - 1) // 2
        enough = n - 2 * (most if f is None else min(f, most))
        squared = robust.distances(updates.rows)
        given = updates.weight.to(squared)
        factor = best = torch.ones_like(given)  # c
        least = torch.inf
        while True:
            mass = given * factor
            root = (mass / mass.sum()).sqrt()
            inner = robust.centred_products(squared, mass)
            # has the nonzero eigenvalues of the covariance
            values, vectors = torch.linalg.eigh(root[:, None] * inner * root)
            if values[-1] < least:
                least, best = values[-1].item(), factor
            along = (inner @ (root * vectors[:, -1])).square().where(factor > 0, 0.0)  # τ times λ
            if along.max() == 0:  # the rows that are left are equal
                break
            factor = factor * (1 - along / along.max())
            if factor.sum() <= enough:
                break
        return updates._replace(weight=(given * best).to(updates.weight))

    return stateless(filtered, scope="coordinates")
