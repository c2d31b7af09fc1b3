"""Optuna proposes specs, generation by generation; the sweep runs them.

The sampler is spelled out and seeded, a generation has a fixed width, and its results are told in
the order in which they were asked for: the number of workers and the order in which trials end
cannot change the search. Nor can the number of trials: a search with more of them begins with those
of the shorter one, and goes on where that ended. Its winner is run again at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import optuna

from backstop.platform.params import BadInput
from backstop.platform.rounds.scores import unbeaten
from backstop.platform.specs.search import Search
from backstop.platform.specs.spec import Spec, validate
from backstop.platform.sweeps.confirmation import Confirmation, Confirmed
from backstop.platform.sweeps.domain import Domain
from backstop.platform.sweeps.generation import Generation, Proposal, up_to
from backstop.platform.sweeps.objectives import OBJECTIVES, read_constraint, read_objectives
from backstop.platform.sweeps.queues import Finals
from backstop.platform.sweeps.samplers import open_study
from backstop.platform.sweeps.search_checks import check_search
from backstop.platform.sweeps.trial_runs import (
    Case,
    SearchTrial,
    cases_of,
    mean_scores,
    twins_first,
)
from backstop.platform.sweeps.twins import shared_quiet_twin


class Proposals:
    """A search as a source of generations. Each proposal is run for every seed and attack, beside
    what its objectives and constraints compare it with.
    """

    def __init__(self, search: Search) -> None:
        """Read the ranges. Raises BadInput for a search that cannot be run."""
        check_search(search)
        self.search = search
        self.objectives = read_objectives(search.objectives)
        self.constraints = [read_constraint(text) for text in search.constraints]
        # what the sampler sees, and by what winners are chosen
        self.steering = [item for item in self.objectives if not item.clocked]
        names = [item.name for item in self.objectives]
        names += [item.name for item in self.constraints]
        self.judgments = list(dict.fromkeys(names))
        needs = [need for judged in self.judgments for need in OBJECTIVES[judged].needs]
        self.needs = list(dict.fromkeys(needs))
        self.domain = Domain(search)
        self.study = open_study(search, self.steering)
        for values in search.first:
            self.study.enqueue_trial(dict(values))
        self.left = search.trials
        self.own_runs = len(search.seeds) * max(1, len(search.attacks))  # of one proposal, about
        self.generation: Generation | None = None
        self.confirmation: Confirmation | None = None
        self.awaited: dict[str, Spec] = {}
        self.unasked: dict[str, Spec] = {}  # of what is awaited
        self.asked: set[str] = set()  # ids of all that was asked for
        self.trials: list[SearchTrial] = []  # in order
        self.confirmed: list[Confirmed] = []

    @property
    def title(self) -> str:
        """What the search is called beside others; empty where it is alone."""
        return self.search.title

    @property
    def pruned(self) -> int:
        """Proposals that were given up at a rung."""
        return sum(trial.state == "pruned" for trial in self.trials)

    def samples(self) -> list[Spec]:
        """A spec for each choice there is: what a search cannot be run for shows in them."""
        specs = []
        for spec in self.domain.samples:
            cases = cases_of(
                spec.replace(evaluate_on="validation"),
                seeds=self.search.seeds[:1],
                attacks=self.search.attacks,
                needs=(),
                quiet=shared_quiet_twin,
            )
            specs += [case.spec for case in cases]
        return specs

    def ask(self) -> list[Spec]:
        """The specs of the next generation, those to compare with first; empty while one is not
        done, and when all is done.
        """
        while self.left and not self.awaited:
            self._begin_generation()
        if not self.awaited and self.confirmation is None:
            self._begin_confirmation()
        unasked, self.unasked = self.unasked, {}
        self.asked |= unasked.keys()
        return list(unasked.values())

    def tell(self, results: Mapping[str, Finals | None]) -> None:
        """Judge what is awaited, once all of it has results."""
        if not self.awaited or not self.awaited.keys() <= results.keys():
            return
        if self.generation is not None:
            self._judge(self.generation, results)
        elif self.confirmation is not None:
            self.awaited = {}
            self.confirmed = self.confirmation.read(self.judgments, results)

    def expected(self) -> int:
        """Runs in all, those asked for and those to come."""
        return len(self.asked) + self.to_come()

    def to_come(self) -> int:
        """Runs that will be asked for, as far as that can be told: proposals to come count as many
        as the present ones have of their own, and one winner counts.
        """
        confirming = self._winner_runs if self.confirmation is None else 0
        return self.left * self.own_runs + confirming

    def best(self) -> SearchTrial | None:
        """The best finished proposal that keeps to the constraints; of several objectives the first
        on the front.
        """
        return next(iter(self.winners()), None)

    def winners(self) -> list[SearchTrial]:
        """What will be confirmed: the best proposal, of several objectives the front."""
        names = [item.name for item in self.steering]
        return self.front(names) if len(names) > 1 else self.front(names)[:1]

    def front(self, names: Sequence[str] | None = None) -> list[SearchTrial]:
        """The finished proposals that keep to the constraints and that no other one beats in all
        of the objectives, those read from a clock too unless they are named; in order.
        """
        finished = [trial for trial in self.trials if trial.state == "finished" and trial.kept]
        objectives = [item for item in self.objectives if names is None or item.name in names]
        gains = [[item.gain(trial.scores[item.name]) for item in objectives] for trial in finished]
        return [finished[index] for index in unbeaten(gains)]

    def _begin_generation(self) -> None:
        width = min(self.search.width, self.left)
        first = self.search.trials - self.left
        self.left -= width
        proposals = [self._propose(first + offset) for offset in range(width)]
        generation = Generation(proposals, self.search.rungs, self.constraints)
        if generation.alive:
            self.own_runs = self._count_own_runs(generation)
        self.generation = generation
        self._await(generation)

    def _propose(self, position: int) -> Proposal:
        trial = self.study.ask()
        values = self.domain.propose(trial)
        spec = self.domain.spec(values)
        try:
            validate(spec)
        except BadInput:  # choices that do not go together
            return Proposal(position, trial, values, None)
        return Proposal(position, trial, values, spec)

    def _await(self, generation: Generation) -> None:
        """Await what is left of a generation at its rung; what is all refused is told at once."""
        cases = [case for item in generation.alive for case in self._cases(item, generation.share)]
        self.awaited = self.unasked = twins_first(cases)
        if not cases:
            self._tell(generation)

    def _cases(self, proposal: Proposal, share: float) -> list[Case]:
        """The runs of a proposal for a share of its rounds."""
        assert proposal.spec is not None
        return cases_of(
            up_to(proposal.spec, share).replace(evaluate_on="validation"),
            seeds=self.search.seeds,
            attacks=self.search.attacks,
            needs=self.needs,
            quiet=shared_quiet_twin,
        )

    def _judge(self, generation: Generation, results: Mapping[str, Finals | None]) -> None:
        """Judge a generation where it stands, and let it go on or tell it."""
        scores = {}
        for item in generation.alive:
            cases = self._cases(item, generation.share)
            scores[item.position] = mean_scores(cases, self.judgments, results)
        self.awaited = {}
        if generation.judge(scores, self.steering[0]):
            self._await(generation)
        else:
            self._tell(generation)

    def _tell(self, generation: Generation) -> None:
        """Tell Optuna a generation, in the order in which it was asked for."""
        self.generation = None
        for item in generation.proposals:
            state, scores, broken = generation.verdicts[item.position]
            for constraint, excess in zip(self.constraints, broken, strict=True):
                item.trial.set_constraint(constraint.words, excess)
            # what failed is the worst there is: Optuna drops a NaN without a word
            told = [scores.get(one.name, one.worst) for one in self.steering]
            if state == "pruned":
                item.trial.report(told[0], step=0)
                self.study.tell(item.trial, state=optuna.trial.TrialState.PRUNED)
            else:
                self.study.tell(item.trial, told)
            kept = bool(scores) and max(broken, default=0.0) <= 0
            self.trials.append(SearchTrial(item.position, item.values, scores, state, kept))

    def _begin_confirmation(self) -> None:
        """Await the winners' runs, each setting once."""
        by_id: dict[str, tuple[SearchTrial, Spec]] = {}
        for trial in self.winners():
            spec = self.domain.spec(trial.values)
            by_id.setdefault(spec.id, (trial, spec))
        self.confirmation = Confirmation(self.search, list(by_id.values()), self.needs)
        self.awaited = self.unasked = self.confirmation.runs()

    def _count_own_runs(self, generation: Generation) -> int:
        """Runs in full that only one proposal of a generation has, on average and rounded up."""
        each = [set(twins_first(self._cases(item, 1.0))) for item in generation.alive]
        own = 0
        for index, ids in enumerate(each):
            own += len(ids.difference(*each[:index], *each[index + 1 :]))
        return math.ceil(own / len(each))

    @cached_property
    def _winner_runs(self) -> int:
        """Runs that confirm one winner."""
        anyone = SearchTrial(0, {}, {}, "finished")
        sample = self.domain.samples[0]
        return len(Confirmation(self.search, [(anyone, sample)], self.needs).runs())
