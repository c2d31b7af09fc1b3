"""What a search is: what is free, what is judged, and on which seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from backstop.platform.specs.part import Scalar
from backstop.platform.specs.spec import Spec

Sampler = Literal["tpe", "tpe_univariate", "nsga2", "nsga3", "random"]
Side = Literal["attack", "defense"]
FRESH_SEEDS = (100, 101, 102)  # of the runs that confirm what a search has chosen
ADDED = "+"  # ends the key of what is added to a chain


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search: Optuna proposes specs around ``base``, generation by generation; each proposal is
    run for every seed, and what turns out best is run again on seeds that the search never saw.

    Proposals are judged on validation data, whatever ``base.evaluate_on`` says; the runs that
    confirm the winner are evaluated on the test set, and only they are ranked.

    ``objective`` is a name of :mod:`backstop.platform.sweeps.objectives`, or several: then the
    winners are the Pareto front. ``minimize NAME`` and ``maximize NAME`` turn one round.
    """

    base: Spec
    # keys as of ``--set``, e.g. "defense.invariant.mask_threshold", with the ranges of the
    # plug-ins' annotations; a proposal whose chain has no such stage goes without
    free: Sequence[str] = ()
    # key → what may stand there, taken before what is free: {"attack": [...], "attack+": [...]}
    # proposes a whole chain, and stages that are added to it ("none" adds nothing)
    choices: Mapping[str, Sequence[Scalar]] = field(default_factory=dict)
    # free key → where to search, instead of the annotation's range
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    # key → value of the first proposals, in full (``attack.pgd.radius``); the sampler fills in what
    # they leave out
    first: Sequence[Mapping[str, Scalar]] = ()
    objective: str | Sequence[str] = "der"
    constraints: Sequence[str] = ()  # what a winner must keep to: "accuracy_lost <= 0.02"
    attacks: Sequence[str] = ()  # each proposal is run under all of them; none given: the base's
    sampler: Sampler = "tpe"
    trials: int = 20
    width: int = 4  # proposals per generation, asked together and told in trial order
    # shares of the rounds after which the worse half of a generation is given up
    rungs: Sequence[float] = ()
    seeds: Sequence[int] = (0,)
    confirm: Sequence[int] = FRESH_SEEDS
    confirm_attacks: Sequence[str] = ()  # what the winner is run under; none given: ``attacks``
    seed: int = 0  # of the sampler
    title: str = ""  # what it is called beside other searches of its space

    @property
    def side(self) -> Side:
        """Whose parameters are searched: the defense's where any of them are, or nothing is."""
        keys = [*self.free, *self.choices]
        defending = not keys or any(key.startswith("defense") for key in keys)
        return "defense" if defending else "attack"

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objectives as they were given."""
        return (self.objective,) if isinstance(self.objective, str) else tuple(self.objective)
