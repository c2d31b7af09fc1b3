"""Measurements: predictions in fixed batches, accuracy, attack success, and what the defense kept.

Actors return predicted labels and everything else is computed from them, so a metric cannot depend
on who evaluated what.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Prediction, PredictView, Samples, Slot, TestSet, Updates
from backstop.platform.training import network

CACHE_BYTES = 1 << 30  # bytes of normalized inputs that are kept for the next round
# values looked at together, so that telemetry needs little memory beside the updates
TELEMETRY_CHUNK = 1 << 22
# samples in an evaluation batch; fixed, so that logits never depend on how batches are dealt to
# actors
BATCH = 500


class Probe(NamedTuple):
    """The inputs that are evaluated in a round: the clean test set and, under attack, the triggered
    one.
    """

    clean: Samples
    triggered: TestSet | None
    # the triggered inputs are the clean ones under the trigger, in the same order
    paired: bool = False


def stamped(x: Tensor, trigger: Callable[[Tensor], Tensor]) -> Tensor:
    """A test set under the trigger, batch by batch; images stay uint8 where that loses nothing: a
    quarter of the memory.
    """
    pieces = [trigger(network.to_unit_interval(piece)) for piece in x.split(BATCH)]
    small = (
        [(piece * 255).round().clamp(0, 255).to(torch.uint8) for piece in pieces]
        if x.dtype == torch.uint8
        else []
    )
    exact = small and all(
        torch.equal(network.to_unit_interval(one), piece)
        for one, piece in zip(small, pieces, strict=True)
    )
    return torch.cat(small if exact else pieces)


class Staged:
    """The inputs of a test set in evaluation batches, normalized once: they stay the same while the
    model changes.
    """

    def __init__(self, net: network.Network, x: Tensor) -> None:
        """Nothing is computed before a batch is asked for; a large set is not kept."""
        self.net, self.x = net, x
        self.batches: dict[int, Tensor] = {}
        self.keep = x.numel() * 4 <= CACHE_BYTES

    def batch(self, index: int) -> Tensor:
        """One evaluation batch as the model takes it."""
        if index in self.batches:
            return self.batches[index]
        made = self.net.normalize(self.x[index * BATCH : (index + 1) * BATCH])
        if self.keep:
            self.batches[index] = made
        return made

    def predict(
        self,
        params: Tensor,
        buffers: Tensor,
        indices: Iterable[int],
    ) -> list[Tensor]:
        """Predicted labels of some batches; -1 where the model's output is not finite."""
        with torch.inference_mode():
            outputs = [self.net.forward(params, self.batch(index), buffers) for index in indices]
            labels = [
                torch.where(logits.isfinite().all(1), logits.argmax(1), -1) for logits in outputs
            ]
        return [batch.clone() for batch in labels]

    def defended(
        self,
        predict: Callable[[PredictView], Prediction],
        params: Tensor,
        buffers: Tensor,
        indices: Sequence[int],
        draws: torch.Generator,
    ) -> list[Prediction]:
        """What the defended model predicts for some batches; -1 where it was given no finite
        output.
        """
        if not indices:
            return []
        broken = torch.zeros((), dtype=torch.bool, device=params.device)

        def scores(vector: Tensor) -> Tensor:
            nonlocal broken
            logits = torch.cat(
                [self.net.forward(vector, self.batch(index), buffers) for index in indices]
            )
            broken = broken | ~logits.isfinite().all(1)
            return logits

        with torch.inference_mode():
            label, radius = predict(PredictView(params, scores, draws))
            label = label.where(~broken, -1)
        sizes = [len(self.batch(index)) for index in indices]
        labels = label.clone().split(sizes)
        if radius is None:
            return [Prediction(piece) for piece in labels]
        radii = radius.where(~broken, 0.0).clone().split(sizes)
        return [Prediction(*pair) for pair in zip(labels, radii, strict=True)]


def joined(parts: Sequence[Prediction]) -> Prediction:
    """The predictions of consecutive batches as one."""
    radii = [part.radius for part in parts if part.radius is not None]
    return Prediction(
        torch.cat([part.label for part in parts]), torch.cat(radii) if radii else None
    )


def batch_count(count: int) -> int:
    """Evaluation batches of a set of ``count`` samples."""
    return -(-count // BATCH)


def accuracy(predicted: Tensor, samples: Samples) -> float:
    """Share of samples with the true label."""
    return (predicted == samples.y).double().mean().item()


def clean_figures(predicted: Tensor, samples: Samples) -> dict[str, float]:
    """What the model does on the clean test set."""
    return {"round/clean_accuracy": accuracy(predicted, samples)}


def success(
    predicted: Tensor,
    triggered: TestSet,
    untriggered: Tensor | None = None,
) -> dict[str, float]:
    """Attack success rate and robust accuracy on the triggered test set, in [0, 1].

    Samples whose true label is the wanted one are left out of both: they would count as successes
    of any model. ``untriggered`` are the predictions (N,) for the same inputs without the trigger:
    how many of them get the wanted label all the same (a poisoned model that likes the target class
    calls everything so), and what the trigger adds to that.

    >>> one = torch.ones(4, dtype=torch.int64)
    >>> inputs = TestSet(torch.empty(4, 0), torch.zeros_like(one), one)
    >>> predicted, without = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    >>> success(predicted, inputs, without)["round/trigger_effect"]
    0.25
    """
    attacked = (triggered.wanted >= 0) & (triggered.wanted != triggered.truth)
    known = attacked & (triggered.truth >= 0)
    rates = {}

    def share(
        labels: Tensor,
        of: Tensor,
        among: Tensor,
    ) -> float:
        return (labels == of)[among].double().mean().item()

    if attacked.any():
        reached = share(predicted, triggered.wanted, attacked)
        rates["round/attack_success_rate"] = reached
        if untriggered is not None:
            anyway = share(untriggered, triggered.wanted, attacked)
            rates["round/untriggered_target_rate"] = anyway
            rates["round/trigger_effect"] = reached - anyway
    if known.any():
        rates["round/robust_accuracy"] = share(predicted, triggered.truth, known)
    return rates


def certified(predicted: Prediction, samples: Samples) -> dict[str, float]:
    """Where the defense certifies its predictions, the share of samples that have a certificate
    (rate), that have one and are right (accuracy), and the median radius.
    """
    if predicted.radius is None:
        return {}
    holds = predicted.radius > 0
    return {
        "round/certified_rate": holds.double().mean().item(),
        "round/certified_accuracy": (holds & (predicted.label == samples.y)).double().mean().item(),
        "round/certified_radius": predicted.radius.double().quantile(0.5).item(),
    }


def rejected(predicted: Prediction) -> float:
    """Share of inputs that are given no label."""
    return (predicted.label < 0).double().mean().item()


def kept(
    before: Updates,
    after: Updates,
    malicious: Tensor,
) -> dict[str, float]:
    """What the defense let through, where rows keep their identity: the weight left to benign and
    to malicious rows, and how it does as a detector: the share of malicious rows (true positives)
    and of benign rows (false positives) that lost all weight.
    """
    if (after.client < 0).any():
        return {}
    figures = {}
    left = after.client[after.weight > 0]
    for name, rate, malicious_ones in (
        ("benign", "false_positive_rate", False),
        ("malicious", "true_positive_rate", True),
    ):
        sent = torch.isin(before.client, malicious) == malicious_ones
        given = before.weight[sent].sum()
        if given > 0:
            still = after.weight[torch.isin(after.client, malicious) == malicious_ones].sum()
            rejected = ~torch.isin(before.client[sent], left)
            figures[f"defense/kept_weight_{name}"] = (still.double() / given.double()).item()
            figures[f"defense/{rate}"] = rejected.double().mean().item()
    return figures


def masked(
    rows: Tensor,
    aggregate: Tensor,
    layout: Sequence[Slot],
) -> dict[str, float]:
    """The share of coordinates that some row (n, d) wanted to move and the aggregate (d,) does not:
    over all, and over each layer (the parameters of one module together).
    """
    still = (aggregate == 0).nonzero().flatten()
    moved = [
        part[(rows[:, part] != 0).any(0)]
        for part in still.split(max(TELEMETRY_CHUNK // len(rows), 1))
    ]
    stopped = torch.cat([still[:0], *moved])
    overall = {"defense/masked_fraction": len(stopped) / max(len(aggregate), 1)}
    starts = torch.tensor([slot.start for slot in layout], device=stopped.device)
    counts = torch.bincount(
        torch.bucketize(stopped, starts, right=True) - 1, minlength=len(layout)
    ).tolist()
    layers: dict[str, list[int]] = {}
    for slot, count in zip(layout, counts, strict=True):
        layer = layers.setdefault(slot.name.rpartition(".")[0] or slot.name, [0, 0])
        layer[0] += count
        layer[1] += math.prod(slot.shape)
    return overall | {
        f"defense/masked_fraction/{name}": count / max(size, 1)
        for name, (count, size) in layers.items()
    }
