"""Bucketing: random groups of s rows, each replaced by its mean.

y_i = Σ_k w_π(k) u_π(k) / Σ_k w_π(k),   k = (i - 1) s + 1 … min(i s, n),   i = 1 … ⌈n / s⌉

with π a random permutation.

Shapes: rows (n, d) → ⌈n / s⌉ mixtures, each with the weight of all its rows.

Source: S. P. Karimireddy, L. He, M. Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via
Bucketing", ICLR 2022, algorithm 1.

Deviations: sample counts weight the means, where the paper's are plain. Every row is in exactly one
bucket; the last one may be smaller and is the mean of what it holds. It is meant to stand before a
robust aggregator: alone it changes nothing in the final mean.

Checked: sizes and means of the buckets, and what can be compared against ByzFL 0.0.11
(tests/defenses/test_byzfl.py): the draws differ. That the paper's means are plain is remembered.

Example:
>>> import torch
>>> from backstop.platform.contract import Updates
>>> from backstop.platform.examples import server_view
>>> updates = Updates(
...     torch.tensor([[1.0], [1.0], [4.0]]), torch.tensor([1.0, 2.0, 3.0]), torch.arange(3)
... )
>>> after, _ = bucketing(size=3).apply(updates, None, server_view())
>>> after.rows.tolist(), after.weight.tolist(), after.client.tolist()
([[2.5]], [6.0], [-1])
"""

from __future__ import annotations

from typing import Annotated, Any

import torch

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates
from backstop.platform.params import Range

VERSION = 1
GIVES = "mixtures"
EXEMPT = ("adversarial",)  # the mean of all buckets is the mean of all rows


def bucketing(
    *,
    size: Annotated[int, Range(1, 10**6, search=(1, 5)), "rows in a bucket, s"] = 2,
) -> Defense:
    """One mixture for each bucket."""

    def apply(updates: Updates, state: Any, view: ServerView) -> tuple[Updates, Any]:
        order = torch.randperm(len(updates.rows), generator=view.generator)
        buckets = order.to(updates.weight.device).split(size)
        shares = updates.weight.new_zeros(len(buckets), len(order), dtype=torch.float64)
        for share, bucket in zip(shares, buckets, strict=True):
            share[bucket] = updates.weight[bucket].double()
        weight = shares.sum(1)
        mixtures = robust.mix(shares / weight[:, None], updates.rows)
        nobody = updates.client.new_full((len(buckets),), -1)
        return Updates(mixtures, weight.to(updates.weight), nobody), state

    return Defense(apply=apply)
