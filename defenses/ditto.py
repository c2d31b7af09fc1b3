"""Ditto: beside the global model each client trains one of its own, which is pulled towards it.

v_k ← v_k - η (∇F_k(v_k) + λ (v_k - w_t))   for each batch on which w_t is trained, too

Shapes: rows (n, d) are those of the global model; each client keeps v, as long as the model with
its buffers.

Source: T. Li, S. Hu, A. Beirami, V. Smith, "Ditto: Fair and Robust Federated Learning Through
Personalization", ICML 2021, algorithm 1.

Deviations: clients count by their samples, and the experiment's own optimizer, begun anew in each
round, takes the steps of both models, where the authors' code takes plain ones for v. λ is fixed;
their code can also choose it anew in each step on validation data. A client that attacks trains no
v: it would be its own victim.

Checked: the step, that both models train on the same batches, that v starts at the model before the
first round and that w_t is the model as it was sent, against the authors' code (litian96/ditto,
``flearn/trainers_MTL/ditto.py``); its scripts take λ = 1.

Needs: honest clients that train this way.

Example:
>>> import torch
>>> personal = ditto(pull=0.5).local.personal
>>> # the second coordinate is 4 away from the global model's
>>> personal(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 4.0]), None)
tensor([1., 3.])
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform.contract import Defense, Local
from backstop.platform.params import Range

VERSION = 1
NEEDS = ("clients",)
TAKES = "row"
KEEPS = "model"
EXEMPT = ("adversarial",)  # rows pass unchanged: what the defense changes comes before them


def ditto(
    *,
    pull: Annotated[
        float, Range(0, 1e3, search=(0.01, 10)), "weight of the distance to the global model, λ"
    ] = 1.0,
) -> Defense:
    """Clients use models of their own; the server is left alone."""
    return Defense(local=Local(personal=lambda grad, delta, noise: grad + pull * delta))
