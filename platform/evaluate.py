"""Measurements: predictions in fixed batches, accuracy, attack success, and what the defense kept.

Actors return predicted labels and everything else is computed from them, so a metric cannot depend on who evaluated what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from backstop.platform import flat
from backstop.platform.contract import Samples, TestSet, Updates

KEPT = 1 << 30  # bytes of normalised inputs that are kept for the next round
CHUNK = 1 << 20  # coordinates looked at together, so that telemetry needs little memory beside the updates
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


class Staged:
    """The inputs of a test set in evaluation batches, normalised once: they stay the same while the model changes."""

    def __init__(self, net: flat.Network, x: Tensor) -> None:
        """Nothing is computed before a batch is asked for; a large set is not kept."""
        self.net, self.x = net, x
        self.batches: dict[int, Tensor] = {}
        self.keep = x.numel() * 4 <= KEPT

    def batch(self, number: int) -> Tensor:
        """One evaluation batch as the model takes it."""
        if number in self.batches:
            return self.batches[number]
        made = self.net.normalise(self.x[number * BATCH : (number + 1) * BATCH])
        if self.keep:
            self.batches[number] = made
        return made

    def predict(self, params: Tensor, buffers: Tensor, numbers: Iterable[int]) -> list[Tensor]:
        """Predicted labels of some batches; -1 where the model's output is not finite."""
        with torch.inference_mode():
            outputs = [self.net.forward(params, self.batch(number), buffers) for number in numbers]
            labels = [torch.where(logits.isfinite().all(1), logits.argmax(1), -1) for logits in outputs]
        return [found.clone() for found in labels]


def batch_count(count: int) -> int:
    """Evaluation batches of a set of ``count`` samples."""
    return -(-count // BATCH)


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
    still = (aggregate == 0).nonzero().flatten()
    wanted_to = sum(int((before.rows[:, part] != 0).any(0).sum()) for part in still.split(CHUNK))
    found["defense/masked_fraction"] = wanted_to / max(len(aggregate), 1)
    return found
