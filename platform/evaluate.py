"""Measurements: predictions in fixed batches, accuracy, attack success, and what the defense kept.

Actors return predicted labels and everything else is computed from them, so a metric cannot depend on who evaluated what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from backstop.platform import flat
from backstop.platform.contract import Samples, TestSet, Updates

BATCH = 500  # samples in an evaluation batch; fixed, so that logits never depend on how batches are dealt to actors


class Probe(NamedTuple):
    """The inputs that are evaluated in a round: the clean test set and, under attack, the triggered one."""

    clean: Samples
    triggered: TestSet | None


def stamped(x: Tensor, trigger: Callable[[Tensor], Tensor]) -> Tensor:
    """A test set under the trigger, batch by batch; images stay uint8 where that loses nothing: a quarter of the memory."""
    pieces = [trigger(flat.unit(piece)) for piece in x.split(BATCH)]
    small = [(piece * 255).round().clamp(0, 255).to(torch.uint8) for piece in pieces] if x.dtype == torch.uint8 else []
    exact = small and all(torch.equal(flat.unit(one), piece) for one, piece in zip(small, pieces, strict=True))
    return torch.cat(small if exact else pieces)


def predict(net: flat.Network, params: Tensor, buffers: Tensor, x: Tensor) -> Tensor:
    """Predicted labels (b,) of one batch of inputs; -1 where the model's output is not finite."""
    with torch.inference_mode():
        logits = net.logits(params, x, buffers)
        return torch.where(logits.isfinite().all(1), logits.argmax(1), -1).clone()


def accuracy(predicted: Tensor, samples: Samples) -> float:
    """Share of samples with the true label."""
    return (predicted == samples.y).double().mean().item()


def success(predicted: Tensor, triggered: TestSet) -> dict[str, float]:
    """Attack success rate and robust accuracy on the triggered test set.

    Samples whose true label is the wanted one are left out of both: they would count as successes of any model.
    """
    attacked = (triggered.wanted >= 0) & (triggered.wanted != triggered.truth)
    known = attacked & (triggered.truth >= 0)
    found = {}
    if attacked.any():
        found["round/attack_success_rate"] = (predicted == triggered.wanted)[attacked].double().mean().item()
    if known.any():
        found["round/robust_accuracy"] = (predicted == triggered.truth)[known].double().mean().item()
    return found


def kept(before: Updates, after: Updates, aggregate: Tensor, malicious: Tensor) -> Mapping[str, float]:
    """What the defense let through: kept weight of benign and malicious rows, where rows keep their identity, and the
    share of coordinates that some row wanted to move and the aggregate does not.
    """
    found = {}
    if (after.client >= 0).all():
        for name, wanted in (("benign", False), ("malicious", True)):
            given = before.weight[torch.isin(before.client, malicious) == wanted].sum()
            left = after.weight[torch.isin(after.client, malicious) == wanted].sum()
            if given > 0:
                found[f"defense/kept_weight_{name}"] = (left.double() / given.double()).item()
    moved = torch.zeros_like(aggregate, dtype=torch.bool)
    for row in before.rows:
        moved |= row != 0
    found["defense/masked_fraction"] = ((aggregate == 0) & moved).double().mean().item()
    return found
