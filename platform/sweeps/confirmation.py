"""What a search has chosen, run again: on the test set, on seeds that no proposal has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backstop.platform.specs.search import Search
from backstop.platform.specs.spec import Spec
from backstop.platform.sweeps.queues import Finals
from backstop.platform.sweeps.trial_runs import (
    Case,
    SearchTrial,
    cases_of,
    mean_scores,
    twins_first,
)
from backstop.platform.sweeps.twins import quiet_twin, with_twins


class Confirmed(NamedTuple):
    """A winner on fresh seeds and the test set."""

    trial: SearchTrial
    specs: Sequence[Spec]  # its own runs, without what they are compared with
    # judgment → its mean over the attacks, for each fresh seed whose runs have not failed
    scores: Mapping[str, Sequence[float]]


class Confirmation:
    """The runs that confirm winners, each with its spec (whose seed does not count)."""

    def __init__(
        self,
        search: Search,
        winners: Sequence[tuple[SearchTrial, Spec]],
        needs: Sequence[str],
    ) -> None:
        """``needs``: what judgments compare runs with."""
        self.cases: list[tuple[SearchTrial, list[list[Case]]]] = []  # of each fresh seed
        for trial, spec in winners:
            by_seed = [_fresh_cases(search, spec, seed, needs) for seed in search.confirm]
            self.cases.append((trial, by_seed))

    def runs(self) -> dict[str, Spec]:
        """All runs by id, with those that a leaderboard compares them with."""
        cases = [case for _, by_seed in self.cases for seed in by_seed for case in seed]
        ranked = with_twins([case.spec for case in cases])
        return twins_first(cases) | {spec.id: spec for spec in ranked}

    def read(
        self,
        judgments: Sequence[str],
        results: Mapping[str, Finals | None],
    ) -> list[Confirmed]:
        """What the fresh seeds say."""
        return [_confirmed(*winner, judgments, results) for winner in self.cases]


def _fresh_cases(
    search: Search,
    spec: Spec,
    seed: int,
    needs: Sequence[str],
) -> list[Case]:
    return cases_of(
        spec.replace(evaluate_on="test"),
        seeds=[seed],
        attacks=search.confirm_attacks or search.attacks,
        needs=needs,
        quiet=quiet_twin,
    )


def _confirmed(
    trial: SearchTrial,
    by_seed: Sequence[Sequence[Case]],
    judgments: Sequence[str],
    results: Mapping[str, Finals | None],
) -> Confirmed:
    scores: dict[str, list[float]] = {name: [] for name in judgments}
    for cases in by_seed:
        for name, score in mean_scores(cases, judgments, results).items():
            scores[name].append(score)
    specs = [case.spec for cases in by_seed for case in cases]
    return Confirmed(trial, specs, scores)
