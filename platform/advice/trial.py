"""The federation in which defenses are tried: somebody's own, or the nearest that a small machine
can train.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from backstop.platform.advice.candidates import Means
from backstop.platform.advice.situation import Situation, check_counts, client_sizes
from backstop.platform.contract import Data, Part, Spec
from backstop.platform.declarations.facts import Kind
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.results.figures.wording import plural
from backstop.platform.specs.part import parse_part
from backstop.platform.specs.spec import attackers_in_cohort
from backstop.platform.training import loading
from backstop.platform.training.client_rules import NOTHING_KEPT
from backstop.platform.training.local_sgd import Trained
from backstop.platform.training.skew import counts_of, skew_of
from backstop.platform.workers.clients import InProcess

MOST_CLIENTS, MOST_IN_ROUND = 100, 20  # that are trained where the real federation is larger
ROOT_SHARE = 10  # the root set is at most one of so many samples
EVALUATIONS = 10
LEAST_ALPHA, MOST_ALPHA = 0.05, 100.0  # of a Dirichlet split that follows given sizes
DEFAULT_ALPHA = 0.5


LabelSkew = float | Literal["natural", "shards"] | None


class _Task(NamedTuple):
    """What stands for a kind of data, and how it is learned."""

    dataset: str
    model: str  # of the stand-in
    own_model: str  # of somebody's own data
    rate: float
    trigger: str


KIND_TASKS: dict[Kind, _Task] = {
    "table": _Task("synthetic(separation=2)", "mlp", "mlp", 0.05, "feature_value(share=0.2)"),
    "image": _Task("digits", "mlp", "cnn", 0.05, "badnets(share=0.2)"),
    "text": _Task("topics", "bag_of_words", "bag_of_words", 0.5, "phrase(share=0.3)"),
}
SENT = ("", "model_replacement(strength=3)", "sign_aligned(strength=1)", "adaptive(steps=0)")


class TriedFederation(NamedTuple):
    """A federation to try defenses in, and what was seen in it when nobody attacked."""

    base: Spec
    means: Means
    attacks: Sequence[str]
    sizes: Sequence[int]  # samples of each client
    label_skew: float  # total variation between a client's labels and all clients', in the mean
    accuracy: float  # of FedAvg
    dimensions: int  # parameters of the model
    seconds: float  # that the run without an attack took
    notes: Sequence[str]  # where it differs from what was asked


def make_trial(situation: Situation, folder: Path, device: str, *, quick: bool) -> TriedFederation:
    """The federation for a situation, trained once without an attack or a defense. Raises BadInput
    where it cannot be made.
    """
    dataset = parse_part(situation.data or KIND_TASKS[situation.kind].dataset)
    data = loading.load_dataset(dataset, folder)
    notes: list[str] = []
    base = _base(situation, dataset, data, notes, quick=quick)
    clients = _Noting()
    began = time.monotonic()
    with closing(Experiment(base, folder, device, clients)) as experiment:
        accuracy = math.nan
        while experiment.rounds_left:
            record = experiment.round()
            if record is not None:
                accuracy = record.metrics["round/clean_accuracy"]
        built, length = experiment.built, experiment.state.params.norm().item()
    if not math.isfinite(length):
        raise BadInput(
            "FedAvg diverges in this federation without any attack, so no defense can be judged;"
            " give a smaller learning_rate"
        )
    counts = counts_of([shard.cpu() for shard in built.shards], data.train.y.cpu(), data.classes)
    return TriedFederation(
        base=base,
        means=means_of(situation, data.kind, base.clients)._replace(
            f=max(1, math.ceil(base.per_round * base.malicious - 1e-9)),
            update=statistics.median(clients.lengths),
            parameters=length,
            batch_norm=built.net.batch_norm,
        ),
        attacks=attacks_on(data.kind),
        sizes=built.sizes,
        label_skew=skew_of(counts).label_mean,
        accuracy=accuracy,
        dimensions=experiment.state.params.numel(),
        seconds=time.monotonic() - began,
        notes=notes,
    )


class _Noting(InProcess):
    """Clients in this process, of whom the median length of each round's updates is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[float] = []

    def train(
        self,
        round_index: int,
        cohort: Sequence[int],
        params: Tensor,
        buffers: Tensor,
        state: Any,
        own: Mapping[int, Tensor] = NOTHING_KEPT,
    ) -> Trained:
        """The rows of a round, as they are."""
        trained = super().train(round_index, cohort, params, buffers, state, own)
        self.lengths.append(trained.rows.norm(dim=1).median().item())
        return trained


def attacks_on(kind: Kind) -> list[str]:
    """A trigger that suits the data, and what is done with the poisoned updates: nothing, scaled,
    with the majority's signs, and fitted to the defense.
    """
    trigger = KIND_TASKS[kind].trigger
    return ["+".join(filter(None, (trigger, sent))) for sent in SENT]


def alpha_for(sizes: Sequence[int], classes: int) -> float | None:
    """The Dirichlet concentration α at which clients differ in size as much as these; None (IID)
    where these do not.

    Each class is dealt in shares of Dir(α, …, α) over the n clients, which have variance
    1/n (1 - 1/n) / (n α + 1). The C classes are dealt independently, so that sizes have the squared
    coefficient of variation (n - 1) / (C (n α + 1)) where the classes are equally large.

    >>> alpha_for([10, 10, 10], 4)
    >>> round(alpha_for([400, 200, 100, 100], 2), 2)
    0.75
    """
    n = len(sizes)
    spread = statistics.pstdev(sizes) / statistics.fmean(sizes)
    if not spread:
        return None
    alpha = ((n - 1) / (classes * spread**2) - 1) / n
    return min(max(alpha, LEAST_ALPHA), MOST_ALPHA)


def _base(
    said: Situation,
    dataset: Part,
    data: Data,
    notes: list[str],
    *,
    quick: bool,
) -> Spec:
    task = KIND_TASKS[data.kind]
    asked = _client_count(said, data)
    check_counts(said, asked)
    alpha = _alpha(said, data, notes)
    clients = asked
    if alpha != "natural" and asked > MOST_CLIENTS:
        clients = MOST_CLIENTS
        notes.append(f"{clients} clients stand for {asked:,}")
    wanted = min(asked, MOST_IN_ROUND) if said.per_round is None else said.per_round
    per_round = min(wanted, clients, MOST_IN_ROUND)
    if per_round < wanted:
        notes.append(f"{per_round} clients a round stand for {wanted:,}")
    malicious = max(1, round(said.attackers * clients / asked))
    if malicious * asked > said.attackers * clients:
        notes.append(
            f"one malicious client is {1 / clients:.1%} of those that were trained; you fear"
            f" {said.attackers / asked:.2g} of all"
        )
    always = attackers_in_cohort(clients, per_round, malicious)
    rounds = max(1, said.rounds // 3) if quick else said.rounds
    model = said.model or (task.model if said.data is None else task.own_model)
    return Spec(
        dataset=dataset,
        model=parse_part(model),
        clients=clients,
        per_round=per_round,
        malicious=malicious / clients,
        selection="fixed" if always else "random",
        alpha=alpha,
        rounds=rounds,
        local_epochs=said.local_epochs,
        batch=said.batch,
        optimizer=Part("sgd", {"lr": said.learning_rate or task.rate, "momentum": 0.9}),
        eval_every=max(1, rounds // EVALUATIONS),
        root_size=_root_size(said, data, notes),
        block=per_round,
    )


def _client_count(said: Situation, data: Data) -> int:
    if said.clients is not None:
        return said.clients
    if sizes := client_sizes(said):
        return len(sizes)
    if data.client is None:
        raise BadInput(
            f"data {said.data} does not say who holds what; say how many clients there are, such as"
            " --clients 8"
        )
    return len(data.client.unique())


def _alpha(
    said: Situation,
    data: Data,
    notes: list[str],
) -> LabelSkew:
    skew = said.skew
    if skew != "auto":
        return skew
    if sizes := client_sizes(said):
        alpha = alpha_for(sizes, data.classes)
        how = "IID" if alpha is None else f"a Dirichlet split at {alpha:.3g}"
        notes.append(f"{how} stands for your sizes: as unequal as they are, but not the same")
        return alpha and round(alpha, 3)
    if data.client is not None:
        return "natural"
    notes.append(f"nobody said how labels are spread: a Dirichlet split at {DEFAULT_ALPHA:g}")
    return DEFAULT_ALPHA


def _root_size(said: Situation, data: Data, notes: list[str]) -> int:
    most = max(1, len(data.train.y) // ROOT_SHARE)
    if said.server_samples > most:
        notes.append(f"the server held {plural(most, 'clean sample')}, not {said.server_samples:,}")
    return min(said.server_samples, most)


def means_of(said: Situation, kind: Kind, clients: int | None = None) -> Means:
    """What a server has and may ask for, as far as its situation says so; ``clients`` where that
    leaves their number to the data.
    """
    known = said.clients or len(client_sizes(said)) or clients
    turns, f = float(said.rounds), 1
    if known:
        per_round = said.per_round or min(known, MOST_IN_ROUND)
        turns *= per_round / known
        f = math.ceil(per_round * said.attackers / known)
    return Means(
        kind=kind,
        root=said.server_samples,
        clients_change=said.clients_train_differently,
        sums_only=said.secure_aggregation,
        f=f,
        turns=turns,
        update=1.0,
        parameters=10.0,
    )
