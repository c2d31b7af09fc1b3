"""FoolsGold: the more alike the updates of two clients have been all along, the less the clients
count.

H_i = Σ_t u_i,t,   cs_ij = cos(H_i, H_j),   v_i = max_j cs_ij
pardoning: cs_ij <- cs_ij · v_i / v_j where v_j > v_i
α_i = 1 - max_j cs_ij,   α_i <- α_i / max_k α_k
α_i <- κ (ln(α_i / (1 - α_i)) + 0.5) within [0, 1],   g = Σ_i α_i u_i

Shapes: rows (n, d) → (n, d), weights times α. History: for each client ever seen one vector, of the
output layer's size; with ``features="all"`` of d, which is the memory of a whole model per client.

Source: C. Fung, C. J. M. Yoon, I. Beschastnikh, "The Limitations of Federated Learning in Sybil
Settings", RAID 2020, algorithm 1.

Deviations: α multiplies the sample counts and g is the weighted mean, so that a small α takes a
client's share, where the paper adds up α_i u_i. Indicative features are chosen (the output layer,
or all), not weighted by the size of the model's parameters. Only the round's clients are compared,
each with its whole history. Cosines below 0 count as 0, as in the authors' published code: the
ratio of the pardon would turn them into similarity. If all α are 0 (the histories all point the
same way), nobody stands out and all keep their weights. Cosines count to six decimals.

Checked: similarity, pardon and logit against the authors' code, from which the rule for cosines
below 0 is. Histories and feature choice are the paper's (remembered).

Needs: history, and each row from one client.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> rows = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, -3.0]])
>>> updates = Updates(rows, torch.tensor([10.0, 20.0, 30.0, 40.0]), torch.arange(4))
>>> after, past = foolsgold(features="all").apply(updates, {3: torch.ones(3)}, None)
>>> after.weight, past[3]
(tensor([ 0.,  0., 30., 40.]), tensor([ 1.,  2., -2.]))
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates
from backstop.platform.params import Range

VERSION = 2
NEEDS = ("history",)
TAKES = "clients"


def foolsgold(
    *,
    features: Annotated[
        Literal["head", "all"], "coordinates that are compared: the output layer's, or all"
    ] = "head",
    confidence: Annotated[
        float, Range(0, 100, low_open=True, search=(0.1, 10), log=True), "steepness of the trust, κ"
    ] = 1.0,
) -> Defense[dict[int, Tensor]]:
    """All rows, their weights times the trust in their clients."""

    def weighed(
        updates: Updates, past: dict[int, Tensor], view: ServerView
    ) -> tuple[Updates, dict[int, Tensor]]:
        rows, clients = updates.rows, updates.client.tolist()
        if features == "head":
            rows = torch.cat([rows[:, slot.span] for slot in view.head], dim=1)
        latest = {
            client: (past.get(client, 0) + row).nan_to_num_()
            for client, row in zip(clients, rows, strict=True)
        }
        alike = 1 - robust.cosine_distances(torch.stack(list(latest.values())))
        trust = _trust(alike.round(decimals=6).fill_diagonal_(0), confidence)
        trusted = updates._replace(weight=updates.weight * trust.to(updates.weight))
        return trusted, {**past, **latest}

    return Defense(init=lambda view: {}, apply=weighed)


def _trust(alike: Tensor, confidence: float) -> Tensor:
    """α of all clients (n,) from their cosines (n, n), 0 on the diagonal: no maximum is below 0."""
    most = alike.amax(1)
    pardon = (most[:, None] / most).where(most > most[:, None], 1.0)
    alone = 1 - (alike * pardon).amax(1)
    if not alone.any():
        return torch.ones_like(alone)
    return (confidence * (torch.logit(alone / alone.max()) + 0.5)).clamp(0, 1)
