"""Measurements: predictions in fixed batches, accuracy, attack success, and what the defense kept.

Actors return predicted labels and everything else is computed from them, so a metric cannot depend
on who evaluated what.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Prediction, PredictView, Samples, Shares, Slot, TestSet
from backstop.platform.training import network

CACHE_BYTES = 1 << 30  # bytes of normalized inputs that are kept for the next round
# coordinates looked at together: what is read twice is still in the cache
TELEMETRY_CHUNK = 1 << 17
# samples in an evaluation batch: fixed, so that logits do not depend on which actor has which batch
BATCH = 500


class Probe(NamedTuple):
    """The inputs that are evaluated in a round: the clean test set and, under attack, the triggered
    one.
    """

    clean: Samples
    triggered: TestSet | None
    # the triggered inputs are the clean ones under the trigger, in the same order
    paired: bool = False
    # each triggered input is made of the clean one at its place, or is that one; of several
    # adversaries the inputs of each are
    aligned: bool = False


def stamped(x: Tensor, trigger: Callable[[Tensor], Tensor]) -> Tensor:
    """A test set under the trigger, batch by batch; images stay uint8 where that loses nothing: a
    quarter of the memory.
    """
    pieces = [trigger(network.to_unit_interval(piece)) for piece in x.split(BATCH)]
    if x.dtype == torch.uint8:
        stored = [to_bytes(piece) for piece in pieces]
        pairs = zip(stored, pieces, strict=True)
        if all(torch.equal(network.to_unit_interval(one), piece) for one, piece in pairs):
            pieces = stored
    return torch.cat(pieces)


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, rounded."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


class Staged:
    """The inputs of a test set in evaluation batches, normalized once: they stay the same while the
    model changes.
    """

    def __init__(self, net: network.Network, x: Tensor) -> None:
        """Nothing is computed before a batch is asked for; a large set is not kept."""
        self.net = net
        self.x = x
        self.batches: dict[int, Tensor] = {}
        self.keep = x.numel() * 4 <= CACHE_BYTES

    def batch(self, index: int) -> Tensor:
        """One evaluation batch as the model takes it."""
        if index in self.batches:
            return self.batches[index]
        start = index * BATCH
        made = self.net.normalize(self.x[start : start + BATCH])
        if self.keep:
            self.batches[index] = made
        return made

    def _changed(
        self,
        index: int,
        change: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:
        """One evaluation batch of changed inputs as the model takes it."""
        if change is None:
            return self.batch(index)
        start = index * BATCH
        x = network.to_unit_interval(self.x[start : start + BATCH])
        return self.net.normalize(change(x))

    def predict(
        self,
        params: Tensor,
        buffers: Tensor,
        indices: Iterable[int],
    ) -> list[Tensor]:
        """Predicted labels of some batches; -1 where the model's output is not finite."""
        together = [indices] if self.keep else [[index] for index in indices]
        labels: list[Tensor] = []
        with torch.inference_mode():
            for some in together:
                labels += self.net.labels(params, list(map(self.batch, some)), buffers)
        return [batch.clone() for batch in labels]

    def defended(
        self,
        predict: Callable[[PredictView], Prediction],
        params: Tensor,
        buffers: Tensor,
        indices: Sequence[int],
        draws: torch.Generator,
        root: Samples | None = None,
    ) -> list[Prediction]:
        """What the defended model predicts for some batches; -1 where it was given no finite
        output. ``root`` are the server's samples.
        """
        if not indices:
            return []
        broken = torch.zeros((), dtype=torch.bool, device=params.device)

        def scores(
            vector: Tensor,
            change: Callable[[Tensor], Tensor] | None = None,
        ) -> Tensor:
            nonlocal broken
            batches = (self._changed(index, change) for index in indices)
            logits = torch.cat([self.net.forward(vector, x, buffers) for x in batches])
            broken = broken | ~_finite(logits)
            return logits

        def model(vector: Tensor, x: Tensor) -> Tensor:
            return self.net.logits(vector, x, buffers)

        if root is not None:
            root = root._replace(x=network.to_unit_interval(root.x))
        with torch.inference_mode():
            label, radius = predict(PredictView(params, scores, draws, model, root))
            label = label.where(~broken, -1)
        sizes = [len(self.batch(index)) for index in indices]
        labels = label.clone().split(sizes)
        if radius is None:
            return [Prediction(piece) for piece in labels]
        radii = radius.where(~broken, 0.0).clone().split(sizes)
        return list(map(Prediction, labels, radii))


def _finite(logits: Tensor) -> Tensor:
    return logits.isfinite().all(1)


def joined(parts: Sequence[Prediction]) -> Prediction:
    """The predictions of consecutive batches as one."""
    labels = torch.cat([part.label for part in parts])
    radii = [part.radius for part in parts if part.radius is not None]
    return Prediction(labels, torch.cat(radii) if radii else None)


def batch_count(count: int) -> int:
    """Evaluation batches of a set of ``count`` samples."""
    return -(-count // BATCH)


def accuracy(predicted: Tensor, samples: Samples) -> float:
    """Share of samples with the true label."""
    return _share(predicted == samples.y)


def sizes(probe: Probe) -> dict[str, float]:
    """How many inputs the rates are shares of: accuracy, and under attack its success."""
    counts = {"run/test_samples": float(len(probe.clean.y))}
    if probe.triggered is not None:
        counts["run/success_samples"] = float(attacked_inputs(probe.triggered).sum())
    return counts


def attacked_inputs(triggered: TestSet) -> Tensor:
    """Which inputs (N,) count for attack success, bool: those with another label than the wanted
    one.
    """
    return (triggered.wanted >= 0) & (triggered.wanted != triggered.truth)


def _share(holds: Tensor) -> float:
    return holds.double().mean().item()


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

    Of several adversaries the rates are those of the one whose success is largest; each one's
    success stands beside them, ``round/attack_success_rate/1`` the first one's.

    >>> one = torch.ones(4, dtype=torch.int64)
    >>> inputs = TestSet(torch.empty(4, 0), torch.zeros_like(one), one)
    >>> predicted, without = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    >>> success(predicted, inputs, without)["round/trigger_effect"]
    0.25
    """
    if triggered.group is not None:
        return _worst(predicted, triggered, untriggered)
    wanted = triggered.wanted
    truth = triggered.truth
    attacked = attacked_inputs(triggered)
    known = attacked & (truth >= 0)
    rates = {}
    if attacked.any():
        reached = _share((predicted == wanted)[attacked])
        rates["round/attack_success_rate"] = reached
        if untriggered is not None:
            anyway = _share((untriggered == wanted)[attacked])
            rates["round/untriggered_target_rate"] = anyway
            rates["round/trigger_effect"] = reached - anyway
    if known.any():
        rates["round/robust_accuracy"] = _share((predicted == truth)[known])
    return rates


def _worst(
    predicted: Tensor,
    triggered: TestSet,
    untriggered: Tensor | None,
) -> dict[str, float]:
    """The rates of the adversary with the largest success, and the success of each."""
    rate = "round/attack_success_rate"
    rates: list[dict[str, float]] = []
    for label, one in zip(*_by_adversary(predicted, triggered), strict=True):
        rates.append(success(label, one, untriggered))
    each = {f"{rate}/{number}": one[rate] for number, one in enumerate(rates, 1) if rate in one}
    # the first of equal ones
    worst = max(rates, key=lambda one: one.get(rate, -1.0))
    return worst | each


def _by_adversary(predicted: Tensor, triggered: TestSet) -> tuple[list[Tensor], list[TestSet]]:
    """The predictions for the inputs of each adversary, and these inputs as a test set."""
    assert triggered.group is not None
    labels, sets = [], []
    for number in range(int(triggered.group.max()) + 1):
        here = triggered.group == number
        x, wanted, truth = triggered.x[here], triggered.wanted[here], triggered.truth[here]
        labels.append(predicted[here.to(predicted.device)])
        sets.append(TestSet(x, wanted, truth, triggered.paired))
    return labels, sets


def certified(predicted: Prediction, samples: Samples) -> dict[str, float]:
    """Where the defense certifies its predictions, the share of samples that have a certificate
    (rate), that have one and are right (accuracy), and the median radius.
    """
    if predicted.radius is None:
        return {}
    holds = predicted.radius > 0
    right = predicted.label == samples.y
    return {
        "round/certified_rate": _share(holds),
        "round/certified_accuracy": _share(holds & right),
        "round/certified_radius": predicted.radius.double().quantile(0.5).item(),
    }


def rejected(predicted: Prediction) -> float:
    """Share of inputs that are given no label."""
    return _share(predicted.label < 0)


def kept(
    before: Shares,
    after: Shares,
    malicious: Tensor,
) -> dict[str, float]:
    """What the defense let through, where rows keep their identity: of the weight that counted
    before, what is left to benign and to malicious rows, and how it does as a detector: the share
    of malicious rows (true positives) and of benign rows (false positives) that lost all weight.
    """
    if (after.client < 0).any():
        return {}
    came = torch.isin(before.client, malicious)
    stayed = torch.isin(after.client, malicious)
    rejected_rows = ~torch.isin(before.client, after.client[after.weight > 0])
    figures = {}
    for name, rate, sent, left in (
        ("benign", "false_positive_rate", ~came, ~stayed),
        ("malicious", "true_positive_rate", came, stayed),
    ):
        given = before.weight[sent].sum().double()
        if given > 0:
            still = after.weight[left].sum().double()
            figures[f"defense/kept_weight_{name}"] = (still / given).item()
            figures[f"defense/{rate}"] = _share(rejected_rows[sent])
    return figures


def masked(stopped: Tensor, layout: Sequence[Slot]) -> dict[str, float]:
    """The share of coordinates that are stopped (d,): over all, and over each layer (the parameters
    of one module together).
    """
    stopped_in: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for slot in layout:
        layer = slot.name.rpartition(".")[0] or slot.name
        stopped_in[layer] += int(stopped[slot.span].count_nonzero())
        sizes[layer] += slot.size
    everywhere = int(stopped.count_nonzero())
    shares = {"defense/masked_fraction": everywhere / max(len(stopped), 1)}
    for layer, size in sizes.items():
        shares[f"defense/masked_fraction/{layer}"] = stopped_in[layer] / max(size, 1)
    return shares


def where_stopped(rows: Tensor, aggregate: Tensor) -> Tensor:
    """Where some row (n, d) wanted to move and the aggregate (d,) does not, (d,) bool."""
    stopped = aggregate == 0
    columns = rows.split(TELEMETRY_CHUNK, dim=1)
    for part, still in zip(columns, stopped.split(TELEMETRY_CHUNK), strict=True):
        undecided = (still & (part[0] == 0)).nonzero()[:, 0]  # of the others the first row tells
        still[undecided] = (part[:, undecided] != 0).any(0)
    return stopped
