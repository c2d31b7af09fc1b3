"""Which defenses a server can use at all, by what their files declare: no name is known here but
those of defenses that need more steps, or another length, than a look can afford.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from backstop.platform import plugins
from backstop.platform.declarations.facts import NEEDS, Kind, Need
from backstop.platform.params import BadInput, nearest
from backstop.platform.results.leaderboard.standings import REFERENCES
from backstop.platform.specs.part import NOTHING

COMPARED_WITH = tuple(family or NOTHING["defense"] for family in REFERENCES)
BEHIND_MIXTURES = "trimmed_mean"  # a robust rule: mixing alone is a mean
# fewer steps than their defaults, which would take longer than all others
SHORTENED = {
    "flip": "flip(steps=5, samples=16)",
    "indicator": "indicator(samples=200, epochs=100)",
    "fldetector": "fldetector(window=4, warm=4)",
}
SUMS_ONLY = "looks at single updates, and under secure aggregation the server sees sums only"
TWICE = 2.0  # rounds in which a client takes part, from which on it has a history


class Means(NamedTuple):
    """What a server has, and what it may ask for."""

    kind: Kind
    root: int  # clean samples
    clients_change: bool
    sums_only: bool
    f: int  # attackers in a round that a defense is told
    turns: float  # rounds in which a client takes part, in the mean
    update: float  # median norm of honest updates
    parameters: float  # norm of the trained model
    batch_norm: bool = True  # whether the model has BatchNorm layers; true where nobody knows


class Candidate(NamedTuple):
    """A defense that can be used."""

    name: str
    chain: str  # text form
    needs: Sequence[str]  # what it must be given, which is there


class Unusable(NamedTuple):
    """A defense that is not advised, and why."""

    name: str
    reason: str
    figure: str = ""  # that goes with the reason


def sort_out(means: Means, only: str | None = None) -> tuple[list[Candidate], list[Unusable]]:
    """The defenses that can be used, and the others. Raises BadInput for unknown names in
    ``only``, names joined by commas.
    """
    chosen = _chosen(only)
    usable: list[Candidate] = []
    unusable: list[Unusable] = []
    for name in plugins.names("defenses"):
        if name in COMPARED_WITH:
            continue
        reason = reason_against(name, means)
        if reason:
            unusable.append(Unusable(name, reason))
        elif name not in chosen:
            unusable.append(Unusable(name, "not asked about (only)"))
        else:
            usable.append(Candidate(name, _chain(name, means), _needs(name)))
    return usable, unusable


def by_reason(unusable: Iterable[Unusable]) -> Mapping[str, Sequence[Unusable]]:
    """The defenses left out for each reason, in the order in which reasons come up."""
    groups: dict[str, list[Unusable]] = {}
    for item in unusable:
        groups.setdefault(item.reason, []).append(item)
    return groups


def _chosen(only: str | None) -> Sequence[str]:
    known = plugins.names("defenses")
    if only is None:
        return known
    chosen = [word.strip() for word in only.split(",")]
    for name in chosen:
        if name not in known:
            raise BadInput(f"only: unknown defense {name!r}; {nearest(name, known)}")
    return chosen


def reason_against(name: str, means: Means) -> str:
    """Why a defense cannot be used; empty where it can. The references can be read off any run."""
    return "" if name in COMPARED_WITH else next(_reasons(name, means), "")


def _reasons(name: str, means: Means) -> Iterator[str]:
    facts = plugins.defense_facts(name)
    if facts.kinds and means.kind not in facts.kinds:
        yield f"is for {' and '.join(facts.kinds)} data, yours is {means.kind}"
    # before what could be had: clean samples do not help where updates are not seen; the law "sums"
    # holds TAKES to it
    if means.sums_only and facts.takes != "row":
        yield SUMS_ONLY
    if "root" in facts.needs and not means.root:
        yield "needs clean samples on the server, and there are none"
    if "clients" in facts.needs and not means.clients_change:
        yield "needs honest clients to train another way, which they cannot be asked to"
    if facts.keeps:
        yield "gives each client a model of its own, and what is tried here is one model for all"
    if "buffers" in facts.needs and not means.batch_norm:
        yield "looks at BatchNorm statistics, and the model has none"
    if "validation" in facts.needs and not means.clients_change:
        yield "needs clients to score models on their own data, which they cannot be asked to"
    if facts.takes == "clients" and "history" in facts.needs and means.turns < TWICE:
        yield (
            "follows each client from round to round, and here a client takes part in"
            f" {means.turns:.2g} rounds in the mean"
        )


def _needs(name: str) -> list[str]:
    facts = plugins.defense_facts(name)
    words: Mapping[Need, str] = NEEDS
    return [words[need] for need in facts.needs]


def _chain(name: str, means: Means) -> str:
    """The text form of a defense, told what it has to be told of this federation."""
    if name in SHORTENED:
        return SHORTENED[name]
    told = _told(name, means)
    text = f"{name}({told})" if told else name
    if plugins.defense_facts(name).gives == "mixtures":
        return f"{text}+{BEHIND_MIXTURES}"
    return text


def _told(name: str, means: Means) -> str:
    """The parameters that are in units of a task: the number of attackers, the length of an update
    that is not too long, and for a defense that clips the model the model's.
    """
    parameters = plugins.find("defenses", name).parameters
    if "f" in parameters:
        return f"f={means.f}"
    if "radius" in parameters:
        return f"radius={means.update:.2g}"
    if "norm" not in parameters:
        return ""
    if "noise" not in parameters:
        return f"norm={means.update:.2g}"
    if plugins.defense_facts(name).predicts:  # clips the model itself
        return f"norm={means.parameters:.2g}, noise=0.002"
    return f"norm={means.update:.2g}, noise={means.update / 100:.2g}"
