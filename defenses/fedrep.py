"""FedRep: the last layer never leaves a client, which fits it to the shared representation before
it trains that.

h_k ← head_epochs of descent on F_k(φ, h_k) in h_k alone;   then φ_k ← local epochs of descent in φ
alone;   φ ← Σ_k p_k φ_k

Shapes: rows (n, d) with 0 at the head; each client keeps h, the weight and the bias of the last
linear layer.

Source: L. Collins, H. Hassani, A. Mokhtari, S. Shakkottai, "Exploiting Shared Representations for
Personalized Federated Learning", ICML 2021, algorithm 1. As a defense it is studied by Z. Qin et
al., "Revisiting Personalized Federated Learning: Robustness Against Backdoor Attacks", KDD 2023,
and broken by ``bapfl``.

Deviations: clients count by their samples. The optimizer begins anew with the representation, and
what is not trained does not move at all; the authors' one optimizer keeps its momentum, and their
weight decay leaves biases out. A client that is new starts from the head before the first round;
clients that have never trained are not measured, where the authors' code lets all of them fit a
head at the end.

Checked: the order of the epochs, and 10 of them for the head before one for the rest, against the
authors' code (lgcollins/FedRep, ``models/Update.py`` and its scripts for CIFAR-10).

Needs: honest clients that train this way.

Example:
>>> fedrep(head_epochs=5).local.private
Private(part='head', epochs=5)
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform.contract import Defense, Local, Private
from backstop.platform.params import Range

VERSION = 1
NEEDS = ("clients",)
TAKES = "row"
KEEPS = "head"
EXEMPT = ("adversarial",)  # rows pass unchanged: what the defense changes comes before them


def fedrep(
    *,
    head_epochs: Annotated[
        int,
        Range(1, 1000, search=(1, 20)),
        "passes over its samples in which a client trains its head, before the local epochs",
    ] = 10,
) -> Defense:
    """Heads stay with the clients; the server is left alone."""
    return Defense(local=Local(private=Private("head", head_epochs)))
