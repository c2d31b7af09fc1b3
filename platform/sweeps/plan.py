"""From a search space to what will be run: an ordered list of distinct, validated specs, before any
worker exists.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backstop.platform import plugins
from backstop.platform.params import BadInput
from backstop.platform.rounds import starts
from backstop.platform.specs.part import Scalar
from backstop.platform.specs.search import Search
from backstop.platform.specs.spec import (
    Spec,
    spec_text,
    spec_title,
    spec_to_json,
    validate,
)
from backstop.platform.sweeps.overrides import Space, with_overrides
from backstop.platform.sweeps.queues import Fixed, SpecSource, Together
from backstop.platform.sweeps.twins import with_twins

if TYPE_CHECKING:
    from backstop.platform.sweeps.search import Proposals


class SweepPlan(NamedTuple):
    """A search space as it will be run."""

    title: str
    source: SpecSource
    specs: list[Spec]  # all of a list; of searches what is known to stand for the others
    searches: Sequence[Proposals] = ()  # the source's, where the space is of searches


def make_plan(
    name: str,
    *,
    changes: Mapping[str, Scalar] | None = None,
    seeds: Sequence[int] | None = None,
    trials: int | None = None,
    say: Callable[[str], None] = print,
) -> SweepPlan:
    """A search space, changed as asked, with the runs that the leaderboard compares it with.

    ``trials`` are the proposals of a search; ``say`` gets a line where a change leaves some specs
    as they are. Raises BadInput for what cannot be run.
    """
    if trials is not None and trials < 1:
        raise BadInput(f"--trials {trials} is not allowed; an integer of at least 1")
    space = with_overrides(load_space(name), changes or {}, seeds, say)
    if trials is not None:
        space = _with_trials(space, trials, name)
    return plan_space(Path(name).stem, space)


def _with_trials(
    space: Space,
    trials: int,
    name: str,
) -> Space:
    """The searches with as many proposals each as asked for. BadInput for a list of specs."""
    if isinstance(space, tuple):
        return tuple(dataclasses.replace(search, trials=trials) for search in space)
    raise BadInput(f"--trials is for a search; {name} is a list of {len(space)} specs")


def plan_space(title: str, space: Sequence[Spec] | Sequence[Search]) -> SweepPlan:
    """A space under its title, with the runs that the leaderboard compares it with."""
    searches = [item for item in space if isinstance(item, Search)]
    if searches:
        return _plan_searches(title, searches)
    specs = warm_first(with_twins(distinct(item for item in space if isinstance(item, Spec))))
    return SweepPlan(title, Fixed(specs), specs)


def _plan_searches(title: str, searches: Sequence[Search]) -> SweepPlan:
    """Searches side by side; what may be chosen in them stands for their specs beforehand."""
    from backstop.platform.sweeps.search import Proposals

    titles = [search.title for search in searches]
    for name in titles:
        if titles.count(name) > 1:
            raise BadInput(
                f"{title}: {titles.count(name)} searches are called {name!r}; give"
                " each a title of its own"
            )
    proposals = [Proposals(search) for search in searches]
    samples = {spec.id: spec for search in proposals for spec in search.samples()}
    return SweepPlan(title, Together(proposals), list(samples.values()), proposals)


def load_space(name: str) -> Space:
    """A search space by its name in search_spaces/, or by the path of a Python file: a list of
    specs, or its searches. Raises BadInput if it cannot be used.
    """
    if name.endswith(".py") or "/" in name:
        plugin = plugins.load_file(name, "search_spaces")
    else:
        plugin = plugins.find("search_spaces", name)
    try:
        space = plugin.factory()
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"search space {name} raised {type(error).__name__}: {error}") from error
    if isinstance(space, Search):
        return (space,)
    if _is_list_of(space, Search):
        return tuple(space)
    if _is_list_of(space, Spec):
        return list(space)
    raise BadInput(
        f"search space {name} must return a non-empty list of Specs, a Search or a list of"
        f" Searches, not {type(space).__name__}"
    )


def _is_list_of(space: object, kind: type) -> bool:
    """Whether all of a list is of one kind, and there is something in it."""
    if not isinstance(space, Sequence) or not space:
        return False
    return all(isinstance(item, kind) for item in space)


def distinct(specs: Iterable[Spec]) -> list[Spec]:
    """The specs validated, in order. Two with one id are refused: one of them is a slip."""
    by_id: dict[str, Spec] = {}
    for spec in specs:
        if spec.id in by_id:
            raise BadInput(
                f"the space holds one spec twice: {spec_title(spec)}, seed {spec.seed}, "
                f"id {spec.id[:12]}"
            )
        by_id[spec.id] = validate(spec)
    return list(by_id.values())


def warm_first(planned: Sequence[Spec]) -> list[Spec]:
    """The specs in another order: first one for each warm-up, so that different workers make
    different ones at the same time.
    """
    first: dict[str, Spec] = {}
    for spec in planned:
        if spec.warmup:
            first.setdefault(spec_text(starts.warmup_spec(spec)), spec)
    early = {spec.id for spec in first.values()}
    return [*first.values(), *(spec for spec in planned if spec.id not in early)]


def run_words(spec: Spec) -> str:
    """A run for people: what it is of, its seed and the first digits of its id."""
    return f"{spec_title(spec)} on {spec.dataset} ({spec.model}), seed {spec.seed}"


def preflight(
    specs: Iterable[Spec],
    folder: Path,
    device: str,
) -> None:
    """Set up every federation of the plan once, so that whatever a spec cannot be run for stops the
    sweep before it starts: missing or corrupt files, a split that leaves a client empty, a set of
    edge cases that is not there, a warm-up that could not be kept.
    """
    from backstop.platform.experiment import Experiment

    federations = {_federation_text(spec): spec for spec in specs}
    for spec in federations.values():
        # a warm-up is work, to be done by the workers
        experiment = Experiment(spec.replace(warmup=0), folder, device)
        if spec.warmup:
            starts.check_makeable(experiment.warm_up_key(spec))
        experiment.close()


def _federation_text(spec: Spec) -> str:
    """What specs have in common that set up the same federation."""
    setup = {
        **spec_to_json(spec),
        "defense": [],
        "rounds": 0,
    }
    return json.dumps(setup, sort_keys=True)
