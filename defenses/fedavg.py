"""Federated averaging: no defense. The rows go to the server's weighted mean as they are.

w <- w + Σ_k (n_k / n) (w_k - w)

Shapes: rows (n, d) → (n, d).

Source: H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-Efficient
Learning of Deep Networks from Decentralized Data", AISTATS 2017, algorithm 1.

Deviations: none. It is the empty chain: ``fedavg`` may be written wherever a defense is named, and
is left out of the spec.

Checked: a weighted mean in NumPy (tests/reference.py).

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> updates = Updates(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0]), torch.arange(2))
>>> fedavg().apply(updates, None, None)[0].rows.tolist()
[[1.0], [3.0]]
"""

from __future__ import annotations

from backstop.platform.contract import Defense, stateless

VERSION = 1
TAKES = "row"
EXEMPT = ("adversarial",)  # of the laws in tests/laws/test_defenses.py: it is the plain mean


def fedavg() -> Defense:
    """The identity."""
    return stateless(lambda updates: updates, scope="coordinates")
