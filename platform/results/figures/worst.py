"""The worst attack, chosen on one half of the seeds and reported on the other.

The maximum of noisy means is above the mean of every one of them; what was chosen on other seeds is
not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from backstop.platform.results.figures.cells import SUCCESS
from backstop.platform.results.figures.means import (
    Estimate,
    SeedValues,
    average,
    common_seeds,
    estimate,
    mean_of,
)
from backstop.platform.results.figures.scored import ScoredCell

Harm = Callable[[ScoredCell], SeedValues]


class Worst(NamedTuple):
    """The worst of several attacks, in the mean over the settings of a board."""

    attack: str  # the one that was chosen most often
    harm: Estimate
    success: Estimate | None  # the attack success of the chosen ones


class _Choice(NamedTuple):
    """What was chosen in one setting."""

    cells: Mapping[int, ScoredCell]  # seed → the cell that was the worst on the other half
    fallback: ScoredCell  # the worst of all, where no seed is common to the attacks


def worst_attack(scored: Iterable[ScoredCell], harm: Harm) -> Worst | None:
    """The attack that harms most in each setting, in the mean over the settings; None where no cell
    says how much it harms.
    """
    settings: dict[str, list[ScoredCell]] = {}
    for item in scored:
        if harm(item):
            settings.setdefault(item.cell.key.setting, []).append(item)
    choices = [_choose(members, harm) for members in settings.values()]
    total = average(_reported(choice, harm) for choice in choices)
    if total is None:
        return None
    success = average(_reported(choice, _success) for choice in choices)
    return Worst(_most_chosen(choices), total, success)


def _success(item: ScoredCell) -> SeedValues:
    return item.by_seed[SUCCESS]


def _choose(cells: Sequence[ScoredCell], harm: Harm) -> _Choice:
    seeds = common_seeds(map(harm, cells))
    halves = seeds[0::2], seeds[1::2]
    chosen: dict[int, ScoredCell] = {}
    for reported, other in (halves, halves[::-1]):
        worst = _worst_on(cells, other or reported, harm)
        chosen |= dict.fromkeys(reported, worst)
    return _Choice(chosen, _worst_on(cells, [], harm))


def _worst_on(
    cells: Sequence[ScoredCell],
    seeds: Sequence[int],
    harm: Harm,
) -> ScoredCell:
    """The cell that harms most in the mean over these seeds, over all of its own without any; of
    several the one with the most success, then the first by name.
    """

    def order(item: ScoredCell) -> tuple[float, float, str]:
        harms = _mean_over(harm(item), seeds)
        return -harms, -_mean_over(_success(item), seeds), item.cell.key.attack

    return min(cells, key=order)


def _mean_over(by_seed: SeedValues, seeds: Sequence[int]) -> float:
    known = {seed: by_seed[seed] for seed in seeds if seed in by_seed}
    return mean_of(estimate(known or by_seed)) or 0.0


def _reported(choice: _Choice, harm: Harm) -> Estimate | None:
    """What the chosen attacks do to the seeds on which they were not chosen."""
    by_seed = {}
    for seed, item in choice.cells.items():
        if seed in harm(item):
            by_seed[seed] = harm(item)[seed]
    known = estimate(by_seed)
    if known is not None:
        return known
    everything = estimate(harm(choice.fallback))
    return None if everything is None else Estimate(everything.mean, {})


def _most_chosen(choices: Iterable[_Choice]) -> str:
    """Of several the first by name."""
    counts: Counter[str] = Counter()
    for choice in choices:
        chosen = choice.cells.values() or [choice.fallback]
        counts.update(item.cell.key.attack for item in chosen)
    return min(counts, key=lambda attack: (-counts[attack], attack))
