"""What a search may judge a proposal by, and what its winner must keep to.

Every figure is one function of the final metrics of a run and of the runs that it is compared with,
all of one seed; a search takes its mean over seeds and attacks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from backstop.platform.params import BadInput, nearest
from backstop.platform.rounds import scores
from backstop.platform.rounds.finals import defense_effectiveness
from backstop.platform.sweeps.queues import Finals

ACCURACY, SUCCESS = "final/clean_accuracy", "final/attack_success_rate"
SERVER_SECONDS = "time/total_aggregate_s"
# what a run may be compared with; Compared has a field of each name
UNDEFENDED, QUIET, UNDISTURBED = "undefended", "quiet", "undisturbed"
NOTHING_MEASURED: Finals = MappingProxyType({})
DIRECTIONS = ("maximize", "minimize")
CONSTRAINT = re.compile(r"\s*(\w+)\s*(<=|>=)\s*(\S+)\s*")


class Compared(NamedTuple):
    """The final metrics of a run beside those of what it is compared with; empty where the search
    has no need of them.
    """

    run: Finals
    undefended: Finals = NOTHING_MEASURED  # FedAvg under the same attack
    quiet: Finals = NOTHING_MEASURED  # the same defense while nobody attacks
    undisturbed: Finals = NOTHING_MEASURED  # FedAvg while nobody attacks


class Judgment(NamedTuple):
    """A figure by which proposals are judged."""

    figure: Callable[[Compared], float]
    needs: tuple[str, ...] = ()
    maximize: bool = True
    clocked: bool = False  # read from a clock: no sampler may see it


def der(seed: Compared) -> float:
    """Defense effectiveness rate in [0, 1] against undefended FedAvg of the same seed; 0.5 is no
    better than FedAvg.
    """
    gained = seed.undefended[SUCCESS] - seed.run[SUCCESS]
    lost = seed.undefended[ACCURACY] - seed.run[ACCURACY]
    return float(defense_effectiveness(gained, lost))


def _excess_success(seed: Compared) -> float:
    """The attack's success above what its inputs achieve before the same defense unattacked."""
    return scores.excess_success(seed.run[SUCCESS], seed.quiet[SUCCESS])


def _accuracy_lost(seed: Compared) -> float:
    """What the attack takes of the clean accuracy that the same defense has without it."""
    return seed.quiet[ACCURACY] - seed.run[ACCURACY]


def _score(seed: Compared) -> float:
    """The leaderboard's score where this attack is the worst one: what neither the attack nor the
    defense's own cost takes away.
    """
    undisturbed = seed.undisturbed[ACCURACY]
    least = min(seed.run[ACCURACY], seed.quiet[ACCURACY])
    cost = max(0.0, undisturbed - least)
    return scores.defense_score(_excess_success(seed), cost)


OBJECTIVES: Mapping[str, Judgment] = {
    "der": Judgment(der, (UNDEFENDED,)),
    "score": Judgment(_score, (QUIET, UNDISTURBED)),
    "clean_accuracy": Judgment(lambda seed: seed.run[ACCURACY]),
    "attack_failure": Judgment(lambda seed: 1 - seed.run[SUCCESS]),
    "attack_success": Judgment(lambda seed: seed.run[SUCCESS]),
    "excess_success": Judgment(_excess_success, (QUIET,)),
    "accuracy_lost": Judgment(_accuracy_lost, (QUIET,), maximize=False),
    "server_seconds": Judgment(
        lambda seed: seed.run[SERVER_SECONDS],
        maximize=False,
        clocked=True,
    ),
}


class SearchObjective(NamedTuple):
    """A judgment with its direction."""

    name: str
    maximize: bool
    clocked: bool

    @property
    def words(self) -> str:
        """As a search gives it."""
        usual = OBJECTIVES[self.name].maximize == self.maximize
        return self.name if usual else f"{DIRECTIONS[not self.maximize]} {self.name}"

    @property
    def worst(self) -> float:
        """What a run that failed or diverged is told as: the worst that any run can be."""
        return 0.0 if self.maximize else 1.0

    def gain(self, value: float) -> float:
        """The value so that more is better."""
        return value if self.maximize else -value


class Constraint(NamedTuple):
    """A bound on a judgment's mean."""

    name: str
    bound: float
    below: bool

    @property
    def words(self) -> str:
        """As a search gives it.

        >>> read_constraint("accuracy_lost<=.02").words
        'accuracy_lost <= 0.02'
        """
        return f"{self.name} {'<=' if self.below else '>='} {self.bound:g}"

    def excess(self, value: float) -> float:
        """By how much a value is beyond the bound; nothing above 0 where it keeps to it.

        >>> read_constraint("clean_accuracy >= 0.75").excess(0.5)
        0.25
        """
        return value - self.bound if self.below else self.bound - value


def read_objectives(given: Sequence[str]) -> tuple[SearchObjective, ...]:
    """The objectives of a search, one at least that a sampler may see. Raises BadInput."""
    read = tuple(_read_objective(text) for text in given)
    if all(objective.clocked for objective in read):
        raise BadInput(
            f"search: objective {', '.join(given) or 'none'} gives the sampler nothing to go by:"
            " seconds differ from run to run, so they are shown on a front and steer nothing;"
            " name another objective too, such as score"
        )
    names = [objective.name for objective in read]
    if len(set(names)) < len(names):
        raise BadInput(f"search: objective {', '.join(given)} names one twice")
    return read


def _read_objective(text: str) -> SearchObjective:
    *direction, name = text.split() or [""]
    if name not in OBJECTIVES:
        raise BadInput(f"search: unknown objective {name!r}; {nearest(name, OBJECTIVES)}")
    judgment = OBJECTIVES[name]
    if not direction:
        return SearchObjective(name, judgment.maximize, judgment.clocked)
    if len(direction) > 1 or direction[0] not in DIRECTIONS:
        raise BadInput(f"search: objective {text!r} is not NAME, minimize NAME or maximize NAME")
    return SearchObjective(name, direction[0] == "maximize", judgment.clocked)


def read_constraint(text: str) -> Constraint:
    """A constraint of the form ``NAME <= number`` or ``NAME >= number``. Raises BadInput."""
    match = CONSTRAINT.fullmatch(text)
    bound = _number(match[3]) if match else None
    if match is None or bound is None:
        raise BadInput(
            f"search: constraint {text!r} is not of the form NAME <= number or NAME >= number;"
            " example: accuracy_lost <= 0.02"
        )
    name = match[1]
    if name not in OBJECTIVES:
        raise BadInput(
            f"search: constraint {text!r}: unknown {name!r}; {nearest(name, OBJECTIVES)}"
        )
    if OBJECTIVES[name].clocked:
        raise BadInput(
            f"search: constraint {text!r}: seconds differ from run to run, so they decide nothing"
        )
    return Constraint(name, bound, below=match[2] == "<=")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
