"""FedBN: the parameters and the statistics of BatchNorm layers never leave a client.

w = (u, γ, β, μ, σ²):   u ← Σ_k p_k u_k over the clients' u_k;   (γ, β, μ, σ²)_k stay with client k

Shapes: rows (n, d) with 0 at γ and β; each client keeps a vector of γ, β, μ and σ².

Source: X. Li, M. Jiang, X. Zhang, M. Kamp, Q. Dou, "FedBN: Federated Learning on Non-IID Features
via Local Batch Normalization", ICLR 2021, algorithm 1. As a defense it is studied by Z. Qin, L.
Yao, D. Chen, Y. Li, B. Ding, M. Cheng, "Revisiting Personalized Federated Learning: Robustness
Against Backdoor Attacks", KDD 2023: what is not shared cannot be poisoned from afar.

Deviations: clients count by their samples, where the authors' five hospitals or sites count alike,
and a round's cohort trains, where all of theirs do. A client that is new starts from the values
before the first round. Clients are measured on their own share of the test set, as all that keep
something are; those that have not trained yet are left out.

Checked: which layers stay, and that clients are tested with theirs, against the authors' code
(med-air/FedBN, ``federated/fed_digits.py``), which leaves out all tensors with "bn" in their name;
that the defense works is a remembered claim of the second paper.

Needs: honest clients that train this way, and a model with BatchNorm layers.

Example:
>>> fedbn().local.private
Private(part='norms', epochs=None)
"""

from __future__ import annotations

from backstop.platform.contract import Defense, Local, Private

VERSION = 1
NEEDS = ("clients",)
TAKES = "row"
KEEPS = "norms"
EXEMPT = ("adversarial",)  # rows pass unchanged: what the defense changes comes before them


def fedbn() -> Defense:
    """BatchNorm layers stay with the clients; the server is left alone."""
    return Defense(local=Local(private=Private("norms")))
