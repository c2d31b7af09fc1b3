"""Every client's own test data, and what is measured on them: means over honest clients, the worst
tenth, and malicious clients apart.

A client's part of the test set has its labels in the proportions of its training samples, as large
as the test set allows and at most MOST_TESTED samples, drawn without repetition. Several clients
may have a sample: a test set that is dealt out would leave a client of hundreds a handful.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, fsum
from typing import NamedTuple

import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import Data, Prediction, Samples, TestSet
from backstop.platform.training.evaluate import (
    Probe,
    accuracy,
    attacked_inputs,
    certified,
    rejected,
    success,
)

MOST_TESTED = 200  # samples in a client's part: a rate is known to 3.5 points
SUCCESS = "round/attack_success_rate"
WORST = 10  # 1/WORST of the clients, at least one, are the worst ones


class OwnTest(NamedTuple):
    """The inputs that a client's model is measured on, as indices into the test sets."""

    clean: Tensor  # (k,)
    triggered: Tensor  # (l,)


class OwnPredictions(NamedTuple):
    """What one client's model makes of them; None where there are none."""

    clean: Prediction | None
    triggered: Prediction | None


def deal_tests(
    data: Data,
    shards: Sequence[Tensor],
    seed: int,
) -> list[Tensor]:
    """For each client the ascending indices of its samples of the test set; none where the test set
    has none of its labels.
    """
    have = data.test.y.cpu().bincount(minlength=data.classes)
    order = data.test.y.cpu().argsort(stable=True).split(have.tolist())
    parts = []
    for client, shard in enumerate(shards):
        held = data.train.y[shard.to(data.train.y.device)].cpu().bincount(minlength=data.classes)
        draws = seeds.generator(seed, "own test", client)
        drawn = [
            of_class[torch.randperm(len(of_class), generator=draws)[:count]]
            for of_class, count in zip(order, proportioned(held, have), strict=True)
        ]
        parts.append(torch.cat(drawn).sort().values)
    return parts


def proportioned(held: Tensor, have: Tensor) -> list[int]:
    """How many test samples of each class a client gets that has ``held`` (classes,) of them for
    training, where the test set has so many: in proportion, as far as it lasts. What rounding
    leaves goes to the classes that are owed most, the first among equals.

    >>> proportioned(torch.tensor([30, 10, 0]), torch.tensor([60, 60, 60]))
    [60, 20, 0]
    >>> proportioned(torch.tensor([2, 1]), torch.tensor([300, 300]))
    [133, 67]
    """
    share = held.double().where(have > 0, 0.0)
    if not share.any():
        return [0] * len(held)
    share = share / share.sum()
    lasts = (have.double() / share)[share > 0].min().item()
    wanted = share * min(float(MOST_TESTED), lasts)
    counts = wanted.floor()
    missing = round(wanted.sum().item()) - int(counts.sum())
    owed = (wanted - counts).argsort(descending=True, stable=True)[:missing]
    counts[owed] += 1
    return torch.minimum(counts, have.double()).long().tolist()


def own_tests(
    dealt: Sequence[Tensor],
    probe: Probe,
    clients: Iterable[int],
    seed: int,
) -> dict[int, OwnTest]:
    """What some clients are measured on in a round: the same samples with the trigger and without,
    of several adversaries with each one's. Where triggered inputs are of the attack's own, all
    clients have the same of them.
    """
    nothing = torch.empty(0, dtype=torch.int64)
    triggered = probe.triggered
    if triggered is None:
        return {client: OwnTest(dealt[client], nothing) for client in clients}
    each = _by_adversary(triggered)
    if probe.aligned:
        attacked = attacked_inputs(triggered).cpu()
        parts_of = {client: [inputs[dealt[client]] for inputs in each] for client in clients}
        return {
            client: OwnTest(dealt[client], torch.cat([part[attacked[part]] for part in parts]))
            for client, parts in parts_of.items()
        }
    draws = seeds.generator(seed, "own test", "triggered")
    some = [
        inputs[torch.randperm(len(inputs), generator=draws)[:MOST_TESTED].sort().values]
        for inputs in each
    ]
    return {client: OwnTest(dealt[client], torch.cat(some)) for client in clients}


def _by_adversary(triggered: TestSet) -> list[Tensor]:
    """The indices of each adversary's inputs; all of them where there is one."""
    if triggered.group is None:
        return [torch.arange(len(triggered.wanted))]
    group = triggered.group.cpu()
    return [(group == number).nonzero().flatten() for number in range(int(group.max()) + 1)]


def client_figures(
    predicted: OwnPredictions,
    part: OwnTest,
    probe: Probe,
    *,
    defended: bool,
) -> dict[str, float]:
    """The figures of one client, named as those of the global model; of several adversaries each
    one's have its number behind (``round/robust_accuracy/2``). ``defended`` says whether the client
    predicts as a defense lets it.
    """
    figures: dict[str, float] = {}
    clean, attacked = predicted
    if clean is not None:
        own = _samples(probe.clean, part.clean)
        figures["round/clean_accuracy"] = accuracy(clean.label, own)
        if defended:
            figures["round/rejected_rate"] = rejected(clean)
            figures |= certified(clean, own)
    if attacked is not None and probe.triggered is not None:
        figures |= _reached(clean, attacked, part, probe)
        if defended:
            figures["round/rejected_triggered_rate"] = rejected(attacked)
    return figures


def _reached(
    clean: Prediction | None,
    attacked: Prediction,
    part: OwnTest,
    probe: Probe,
) -> dict[str, float]:
    """What each adversary reaches at one client."""
    made = probe.triggered
    assert made is not None
    counts = attacked_inputs(made).cpu()
    figures: dict[str, float] = {}
    for number, inputs in enumerate(_by_adversary(made), 1):
        here = torch.isin(part.triggered, inputs)
        index = part.triggered[here].to(made.wanted.device)
        label = attacked.label[here.to(attacked.label.device)]
        untriggered = None
        if probe.paired and probe.aligned and clean is not None:
            where = counts[inputs[part.clean]]
            untriggered = clean.label[where.to(clean.label.device)]
        own = TestSet(made.x[index], made.wanted[index], made.truth[index])
        behind = "" if made.group is None else f"/{number}"
        for name, rate in success(label, own, untriggered).items():
            figures[name + behind] = rate
    return figures


def _samples(samples: Samples, index: Tensor) -> Samples:
    index = index.to(samples.y.device)
    return Samples(samples.x[index], samples.y[index])


def federation_figures(
    by_client: Mapping[int, Mapping[str, float]],
    malicious: Iterable[int],
) -> dict[str, float]:
    """The means over honest clients, the worst tenth of them, and malicious clients apart; of
    several adversaries the rates of the one whose success is largest in the mean.

    >>> rates = {0: {"round/clean_accuracy": 0.5}, 1: {"round/clean_accuracy": 1.0}}
    >>> federation_figures(rates | {7: {"round/clean_accuracy": 0.25}}, [7])
    ... # doctest: +NORMALIZE_WHITESPACE
    {'round/clean_accuracy': 0.75, 'round/worst_tenth_accuracy': 0.5,
     'round/malicious_accuracy': 0.25}
    """
    apart = set(malicious)
    honest = _of_worst([rates for client, rates in by_client.items() if client not in apart])
    attackers = _of_worst([rates for client, rates in by_client.items() if client in apart])
    names = dict.fromkeys(name for figures in honest for name in figures)
    told = {name: _mean(_values(honest, name)) for name in names}
    for name, word, worst_is_most in (
        ("round/clean_accuracy", "accuracy", False),
        (SUCCESS, "success", True),
    ):
        values = sorted(_values(honest, name), reverse=worst_is_most)
        if values:
            told[f"round/worst_tenth_{word}"] = _mean(values[: ceil(len(values) / WORST)])
        theirs = _values(attackers, name)
        if theirs:
            told[f"round/malicious_{word}"] = _mean(theirs)
    return told


def _of_worst(clients: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """The figures of some clients with those of the adversary whose success is largest in their
    mean, the first of equal ones, under the plain names; each one's success stays beside them.
    """
    names = dict.fromkeys(name for rates in clients for name in rates)
    each = [name for name in names if name.startswith(f"{SUCCESS}/")]
    if not each:
        return list(clients)
    worst = max(each, key=lambda name: _mean(_values(clients, name)))
    behind = worst.removeprefix(SUCCESS)
    called = {name: name.removesuffix(behind) for name in names if name.endswith(behind)}
    plain = [name for name in names if name in each or name.count("/") == 1]
    return [
        {name: rates[name] for name in plain if name in rates}
        | {called[name]: rates[name] for name in called if name in rates}
        for rates in clients
    ]


def global_figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """The figures of the global model under names of their own.

    >>> global_figures({"round/clean_accuracy": 0.5, "round/robust_accuracy": 0.25})
    {'round/global_accuracy': 0.5}
    """
    names = {"round/clean_accuracy": "accuracy", SUCCESS: "success"}
    return {
        f"round/global_{word}": metrics[name] for name, word in names.items() if name in metrics
    }


def measured_sizes(tests: Mapping[int, OwnTest], malicious: Iterable[int]) -> dict[str, float]:
    """How many clients and inputs the rates of honest clients are means over."""
    apart = set(malicious)
    honest = [test for client, test in tests.items() if client not in apart]
    counts = {
        "run/measured_clients": float(len(honest)),
        "run/test_samples": float(sum(len(test.clean) for test in honest)),
    }
    attacked = sum(len(test.triggered) for test in honest)
    return counts | ({"run/success_samples": float(attacked)} if attacked else {})


def _values(clients: Iterable[Mapping[str, float]], name: str) -> list[float]:
    return [figures[name] for figures in clients if name in figures]


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
