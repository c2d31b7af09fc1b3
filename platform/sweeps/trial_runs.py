"""The runs of one proposal, and what they say of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from backstop.platform.rounds.finals import finite
from backstop.platform.specs.part import Scalar, to_chain
from backstop.platform.specs.spec import Spec
from backstop.platform.sweeps.objectives import OBJECTIVES, Compared, Constraint
from backstop.platform.sweeps.queues import Finals
from backstop.platform.sweeps.twins import compared_with

# finished: run in full; pruned: given up at a rung; failed: a run of it failed or diverged;
# refused: not a spec that can be run
TrialState = Literal["finished", "pruned", "failed", "refused"]


class SearchTrial(NamedTuple):
    """A proposal that has been judged."""

    position: int  # from 0, in the order in which they were asked for
    values: Mapping[str, Scalar]  # key → what was proposed
    scores: Mapping[str, float]  # judgment → mean; of a pruned one at its last rung
    state: TrialState
    kept: bool = True  # whether it keeps to every constraint


class Case(NamedTuple):
    """A run of a proposal, of one seed and attack, and what it is compared with."""

    spec: Spec
    beside: Mapping[str, Spec] = {}

    def compared(self, results: Mapping[str, Finals | None]) -> Compared | None:
        """The results side by side; None where the run has failed or diverged."""
        run = results[self.spec.id]
        if not run or not finite(run.values()):
            return None  # max(0, NaN) is 0: it would pass for a good run
        beside = {name: results[twin.id] or {} for name, twin in self.beside.items()}
        return Compared(run, **beside)


def cases_of(
    spec: Spec,
    *,
    seeds: Sequence[int],
    attacks: Sequence[str],
    needs: Sequence[str],
    quiet: Callable[[Spec], Spec],
) -> list[Case]:
    """A case for each seed and attack, the spec's own without any; ``quiet`` makes the twin in
    which nobody attacks.
    """
    chains = [to_chain(text, "attack") for text in attacks] or [spec.attack]
    cases = []
    for seed in seeds:
        for chain in chains:
            run = spec.replace(seed=seed, attack=chain)
            cases.append(Case(run, compared_with(run, needs, quiet)))
    return cases


def twins_first(cases: Sequence[Case]) -> dict[str, Spec]:
    """The runs of all cases by id, first what they are compared with."""
    twins = {spec.id: spec for case in cases for spec in case.beside.values()}
    return twins | {case.spec.id: case.spec for case in cases}


def mean_scores(
    cases: Sequence[Case],
    names: Sequence[str],
    results: Mapping[str, Finals | None],
) -> dict[str, float]:
    """Judgment → its mean over the cases; empty where one of them has none."""
    each = [_case_scores(case, names, results) for case in cases]
    if not all(each):
        return {}
    return {name: math.fsum(scores[name] for scores in each) / len(each) for name in names}


def _case_scores(
    case: Case,
    names: Iterable[str],
    results: Mapping[str, Finals | None],
) -> dict[str, float]:
    """Judgment → its figure in one case; empty where a run failed, diverged or lacks a metric."""
    compared = case.compared(results)
    if compared is None:
        return {}
    try:
        return {name: OBJECTIVES[name].figure(compared) for name in names}
    except KeyError:
        return {}


def violations(scores: Mapping[str, float], constraints: Sequence[Constraint]) -> list[float]:
    """By how much scores break each constraint, nothing above 0 where they keep to it; what has no
    scores breaks all.
    """
    if not scores:
        return [1.0 for _ in constraints]
    return [constraint.excess(scores[constraint.name]) for constraint in constraints]
