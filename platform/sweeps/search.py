"""Optuna proposes specs, generation by generation; the sweep runs them.

The sampler (TPE) is spelled out and seeded, a generation has a fixed width, and its results are
told in the order in which they were asked for: the number of workers and the order in which trials
end cannot change the search. Nor can the number of trials: a search with more of them begins with
those of the shorter one, and goes on where that ended.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna

from backstop.platform import plugins, seeds
from backstop.platform.optimizers import OPTIMIZERS
from backstop.platform.params import BadInput, Parameter, Range, nearest, schema
from backstop.platform.rounds.finals import defense_effectiveness
from backstop.platform.specs.change import change_spec, named_parameter
from backstop.platform.specs.part import GROUPS, NOTHING, Scalar, chain_text
from backstop.platform.specs.spec import Search, Spec, scalar_fields
from backstop.platform.sweeps.queues import Finals

# proposals at random before TPE begins, at least a generation: a third of `tune_invariant`
STARTUP = 8
# of every objective: a run that diverged or failed is told as this, because Optuna drops a NaN
# without a word
WORST = 0.0


def der(baseline: Finals, run: Finals) -> float:
    """Defense effectiveness rate in [0, 1] against undefended FedAvg of the same seed; 0.5 is no
    better than FedAvg.
    """
    gained = baseline["final/attack_success_rate"] - run["final/attack_success_rate"]
    lost = baseline["final/clean_accuracy"] - run["final/clean_accuracy"]
    return float(defense_effectiveness(gained, lost))


def clean_accuracy(baseline: Finals, run: Finals) -> float:
    """Accuracy on the clean test set."""
    del baseline
    return run["final/clean_accuracy"]


def attack_failure(baseline: Finals, run: Finals) -> float:
    """One minus the attack success rate."""
    del baseline
    return 1 - run["final/attack_success_rate"]


def attack_success(baseline: Finals, run: Finals) -> float:
    """The attack success rate: for a search on the attacker's side."""
    del baseline
    return run["final/attack_success_rate"]


OBJECTIVES = {
    "der": der,
    "clean_accuracy": clean_accuracy,
    "attack_failure": attack_failure,
    "attack_success": attack_success,
}


def parameter(base: Spec, key: str) -> Parameter:
    """What the annotation behind a key such as ``defense.invariant.mask_threshold`` declares."""
    head, *rest = key.split(".")
    if head in NOTHING and rest:
        return _stage_parameter(base, head, key, rest)
    if rest:
        declared = _part_parameters(base, head)
        name = ".".join(rest)
    else:
        declared = scalar_fields()
        name = head
    if name not in declared:
        hint = nearest(key, [*scalar_fields(), "attack.strength"])
        raise BadInput(f"search: unknown free parameter {key!r}; {hint}")
    return declared[name]


def _part_parameters(base: Spec, head: str) -> Mapping[str, Parameter]:
    """What the optimizer, the dataset or the model of a spec declares."""
    if head == "optimizer":
        return schema(OPTIMIZERS[base.optimizer.name])
    if head in ("dataset", "model"):
        part = getattr(base, head)
        return plugins.find(GROUPS[head], part.name).parameters
    return {}


def _stage_parameter(
    base: Spec,
    role: str,
    key: str,
    rest: list[str],
) -> Parameter:
    chain = base.attack if role == "attack" else base.defense
    named = named_parameter(chain, role, rest)
    if named is None:
        hint = nearest(".".join(rest[:1]), [stage.name for stage in chain])
        raise BadInput(f"search: {key!r} is not in {role} {chain_text(chain, role)}; {hint}")
    stage, name = named
    declared = plugins.find(GROUPS[role], stage).parameters
    if name not in declared:
        raise BadInput(
            f"search: {role} {stage} has no parameter {name!r}; {nearest(name, declared)}"
        )
    return declared[name]


def distribution(key: str, declared: Parameter) -> optuna.distributions.BaseDistribution:
    """The search range: the annotation's, narrowed where it says so."""
    if declared.choices and not declared.range:
        return optuna.distributions.CategoricalDistribution(declared.choices)
    if bool in declared.types:
        return optuna.distributions.CategoricalDistribution([False, True])
    if declared.range is None:
        raise BadInput(
            f"search: {key!r} has no range to search; its plug-in declares {declared.allowed}"
        )
    if float in declared.types:
        return _float_distribution(declared.range)
    return _int_distribution(declared.range)


def _ends(bounds: Range) -> tuple[float, float]:
    """Where to search."""
    return bounds.search or (bounds.low, bounds.high)


def _int_distribution(bounds: Range) -> optuna.distributions.IntDistribution:
    low, high = _ends(bounds)
    return optuna.distributions.IntDistribution(int(low), int(high), log=bounds.log)


def _float_distribution(bounds: Range) -> optuna.distributions.FloatDistribution:
    """From the first number that is allowed to the last: Optuna proposes both ends."""
    low, high = _ends(bounds)
    if bounds.high_open and high == bounds.high:
        high = math.nextafter(high, low)
    if bounds.low_open and low == bounds.low:
        low = math.nextafter(low, high)
    return optuna.distributions.FloatDistribution(low, high, log=bounds.log)


def _sampler(search: Search) -> optuna.samplers.TPESampler:
    """TPE, every choice of which is spelled out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seeds.stream(search.seed, "search") % 2**32,
            n_startup_trials=max(STARTUP, search.width),
            n_ei_candidates=24,
            multivariate=True,
            constant_liar=True,
        )


class _Pair(NamedTuple):
    """A proposal for one seed, and what it is compared with."""

    undefended: Spec
    defended: Spec


class _Proposal(NamedTuple):
    """What Optuna proposed, and the specs that were made of it."""

    trial: optuna.Trial
    pairs: list[_Pair]  # one for each seed


class Proposals:
    """A search as a source of generations. Each proposal is run for every seed, beside undefended
    FedAvg of that seed.
    """

    def __init__(self, search: Search) -> None:
        """Read the ranges. Raises BadInput for a free parameter that does not exist or has no
        range.
        """
        if search.objective not in OBJECTIVES:
            hint = nearest(search.objective, OBJECTIVES)
            raise BadInput(f"search: unknown objective {search.objective!r}; {hint}")
        self.search = search
        self.score = OBJECTIVES[search.objective]
        self.space = {}
        for key in search.free:
            declared = parameter(search.base, key)
            self.space[key] = distribution(key, declared)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(direction="maximize", sampler=_sampler(search))
        self.left = search.trials
        self.open: list[_Proposal] = []
        # proposals in order, with what they were told
        self.trials: list[tuple[dict[str, Scalar], float]] = []
        self.asked: set[str] = set()  # ids

    def spec(self, values: Mapping[str, Any], seed: int) -> Spec:
        """The base with the proposed values."""
        spec = self.search.base.replace(seed=seed)
        for key, value in values.items():
            spec = change_spec(spec, key, value)
        return spec

    def ask(self) -> list[Spec]:
        """The specs of the next ``width`` proposals, for every seed; FedAvg of each seed comes
        first.
        """
        width = min(self.search.width, self.left)
        self.open = [self._propose() for _ in range(width)]
        self.left -= width
        pairs = [pair for proposal in self.open for pair in proposal.pairs]
        undefended = {pair.undefended.id: pair.undefended for pair in pairs}
        defended = {pair.defended.id: pair.defended for pair in pairs}
        generation = undefended | defended
        self.asked |= generation.keys()
        return list(generation.values())

    def _propose(self) -> _Proposal:
        trial = self.study.ask(self.space)
        pairs = [self._pair(trial.params, seed) for seed in self.search.seeds]
        return _Proposal(trial, pairs)

    def _pair(self, values: Mapping[str, Any], seed: int) -> _Pair:
        spec = self.spec(values, seed)
        return _Pair(spec.replace(defense=()), spec)

    def expected(self) -> int:
        """Runs in all, those asked for and those to come. Proposals to come count as if no two were
        equal, so the number may fall as they come; when all are asked for it is exact.
        """
        shared = all(key.startswith("defense.") for key in self.search.free)
        # with an undefended run of its own
        own = 2 if self.search.base.defense and not shared else 1
        first = len(self.search.seeds) if shared and not self.asked else 0
        return len(self.asked) + first + self.left * len(self.search.seeds) * own

    def tell(self, results: Mapping[str, Finals | None]) -> None:
        """Tell the generation that is open, in the order in which it was asked for."""
        for trial, pairs in self.open:
            score = self._score(pairs, results)
            self.study.tell(trial, score)
            self.trials.append((dict(trial.params), score))
        self.open = []

    def _score(self, pairs: Sequence[_Pair], results: Mapping[str, Finals | None]) -> float:
        """The mean objective over the seeds; the worst finite value where a run failed, diverged or
        has no such metric.
        """
        scores = []
        for undefended, defended in pairs:
            baseline = results[undefended.id] or {}
            run = results[defended.id] or {}
            if not _finite(run):
                return WORST  # max(0, NaN) is 0: it would pass for a good run
            try:
                score = self.score(baseline, run)
            except KeyError:
                return WORST
            scores.append(score)
        return sum(scores) / len(scores)

    def best(self) -> tuple[dict[str, Scalar], float] | None:
        """The best proposal so far."""
        return max(self.trials, key=lambda item: item[1], default=None)


def _finite(finals: Finals) -> bool:
    return all(map(math.isfinite, finals.values()))
