"""One generation of proposals, from rung to rung to the last round.

At each rung all that is left has run for a share of its rounds, the better half goes on and the
others are given up: successive halving that waits for all, so that neither the number of workers
nor the order in which runs end can change it. To run up to a rung is a run of its own with fewer
rounds; it is told apart from finished ones by its spec.

Source: K. Jamieson, A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization", AISTATS 2016.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backstop.platform.specs.part import Scalar
from backstop.platform.specs.spec import Spec
from backstop.platform.sweeps.objectives import Constraint, SearchObjective
from backstop.platform.sweeps.ranges import OptunaTrial
from backstop.platform.sweeps.trial_runs import TrialState, violations


class Proposal(NamedTuple):
    """What Optuna proposed, and the spec that was made of it."""

    position: int
    trial: OptunaTrial
    values: Mapping[str, Scalar]
    spec: Spec | None  # None where it cannot be run


class Judged(NamedTuple):
    """What is known of a proposal."""

    state: TrialState
    scores: Mapping[str, float]  # judgment → mean; empty where it failed
    broken: Sequence[float]  # by how much each constraint is broken


class Generation:
    """Proposals that were asked for together, and what of them goes on."""

    def __init__(
        self,
        proposals: Sequence[Proposal],
        rungs: Sequence[float],
        constraints: Sequence[Constraint],
    ) -> None:
        """``rungs`` are shares of the rounds."""
        self.proposals, self.rungs, self.constraints = proposals, rungs, constraints
        self.rung = 0
        self.alive = [item for item in proposals if item.spec is not None]
        self.verdicts: dict[int, Judged] = {}
        for item in proposals:
            self.verdicts[item.position] = Judged("refused", {}, violations({}, constraints))

    @property
    def share(self) -> float:
        """The share of the rounds that is run at this rung."""
        return self.rungs[self.rung] if self.rung < len(self.rungs) else 1.0

    def judge(
        self,
        scores: Mapping[int, Mapping[str, float]],
        objective: SearchObjective,
    ) -> bool:
        """Take up what the proposals that are alive have reached, by their positions; whether some
        of them go on to a next rung.
        """
        for position, reached in scores.items():
            broken = violations(reached, self.constraints)
            self.verdicts[position] = Judged("finished" if reached else "failed", reached, broken)
        if self.rung >= len(self.rungs):
            return False
        self.rung += 1
        running = [item for item in self.alive if scores[item.position]]
        ranked = sorted(running, key=lambda item: self._rank(item, objective))
        self.alive, given_up = halves(ranked)
        for item in given_up:
            self.verdicts[item.position] = self.verdicts[item.position]._replace(state="pruned")
        return bool(self.alive)

    def _rank(self, item: Proposal, objective: SearchObjective) -> tuple[float, float]:
        """Least first: what breaks constraints least, then what gains most."""
        verdict = self.verdicts[item.position]
        broken = math.fsum(max(0.0, excess) for excess in verdict.broken)
        return broken, -objective.gain(verdict.scores[objective.name])


def halves(ranked: Sequence[Proposal]) -> tuple[list[Proposal], list[Proposal]]:
    """The better half, the larger one of an odd number and in the order of asking, and the rest."""
    middle = math.ceil(len(ranked) / 2)
    better = sorted(ranked[:middle], key=lambda item: item.position)
    return better, list(ranked[middle:])


def up_to(spec: Spec, share: float) -> Spec:
    """The spec with a share of its rounds, of those from the attack's first on.

    >>> up_to(Spec(rounds=30), 0.25).rounds
    8
    """
    start = spec.attack_start if spec.attack else 0
    return spec.replace(rounds=start + math.ceil(share * (spec.rounds - start)))
