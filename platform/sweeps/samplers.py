"""Optuna's studies, every choice of which is spelled out and seeded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import optuna

from backstop.platform import seeds
from backstop.platform.params import BadInput, nearest
from backstop.platform.specs.search import Sampler, Search
from backstop.platform.sweeps.objectives import SearchObjective

# proposals at random before a sampler learns, at least a generation: a third of `tune_invariant`
STARTUP = 8


def open_study(search: Search, objectives: Sequence[SearchObjective]) -> optuna.Study:
    """A study of the objectives, in memory. Raises BadInput for an unknown sampler.

    Searches of one seed begin with the same random proposals, as far as their ranges are the same.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    maximize, minimize = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    directions = [maximize if item.maximize else minimize for item in objectives]
    if search.sampler not in SAMPLERS:
        hint = nearest(search.sampler, get_args(Sampler))
        raise BadInput(f"search: unknown sampler {search.sampler!r}; {hint}")
    seed = seeds.stream(search.seed, "search") % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = SAMPLERS[search.sampler](search, seed)
        return optuna.create_study(directions=directions, sampler=sampler)


def _tpe(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    """Parameters that stand together in proposals are proposed together."""
    return optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=max(STARTUP, search.width),
        n_ei_candidates=24,
        multivariate=True,
        group=bool(search.choices),
        constant_liar=True,
    )


def _tpe_univariate(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    """Each parameter by itself."""
    return optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=max(STARTUP, search.width),
        n_ei_candidates=24,
        multivariate=False,
        constant_liar=True,
    )


def _nsga2(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(
        population_size=max(STARTUP, search.width),
        crossover_prob=0.9,
        swapping_prob=0.5,
        seed=seed,
    )


def _nsga3(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIIISampler(
        population_size=max(STARTUP, search.width),
        crossover_prob=0.9,
        swapping_prob=0.5,
        seed=seed,
    )


def _random(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    """Blind to all results."""
    del search
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: Mapping[str, Callable[[Search, int], optuna.samplers.BaseSampler]] = {
    "tpe": _tpe,
    "tpe_univariate": _tpe_univariate,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "random": _random,
}
