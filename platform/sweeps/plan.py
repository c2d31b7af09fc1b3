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
from backstop.platform.specs.spec import (
    Search,
    Spec,
    spec_text,
    spec_title,
    spec_to_json,
    validate,
)
from backstop.platform.sweeps.overrides import with_overrides
from backstop.platform.sweeps.queues import Fixed, SpecSource

if TYPE_CHECKING:
    from backstop.platform.sweeps.search import Proposals


class SweepPlan(NamedTuple):
    """A search space as it will be run."""

    title: str
    source: SpecSource
    specs: list[Spec]  # what is known of it beforehand: of a search, its undefended runs
    proposals: Proposals | None = None  # the source, where it is a search


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
    space: list[Spec] | Search,
    trials: int,
    name: str,
) -> Search:
    """The search with as many proposals as asked for. BadInput for a list of specs."""
    if isinstance(space, Search):
        return dataclasses.replace(space, trials=trials)
    raise BadInput(f"--trials is for a search; {name} is a list of {len(space)} specs")


def plan_space(title: str, space: Sequence[Spec] | Search) -> SweepPlan:
    """A space under its title, with the runs that the leaderboard compares it with."""
    if isinstance(space, Search):
        from backstop.platform.sweeps.search import Proposals

        proposals = Proposals(space)
        undefended = [space.base.replace(seed=seed, defense=()) for seed in space.seeds]
        return SweepPlan(title, proposals, distinct(undefended), proposals)
    specs = warm_first(with_twins(distinct(space)))
    return SweepPlan(title, Fixed(specs), specs)


def load_space(name: str) -> list[Spec] | Search:
    """A search space by its name in search_spaces/, or by the path of a Python file. Raises
    BadInput if it cannot be used.
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
        return space
    if _holds_specs(space):
        return list(space)
    raise BadInput(
        f"search space {name} must return a non-empty list of Specs or a Search, "
        f"not {type(space).__name__}"
    )


def _holds_specs(space: object) -> bool:
    """Whether it is a list of specs, and not an empty one."""
    if not isinstance(space, Sequence) or not space:
        return False
    return all(isinstance(item, Spec) for item in space)


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


def with_twins(specs: Sequence[Spec]) -> list[Spec]:
    """The specs, and after them what the leaderboard compares them with where it is missing: for
    every setting and seed undefended FedAvg under the same attack, and under each defense, FedAvg
    too, the dormant trigger, which is the natural success of the attack's inputs.

    A dormant run trains the model of the run without any attack, so it stands for that one: where
    there is no trigger, the run without an attack is added.
    """
    by_text = {spec_text(spec): spec for spec in specs}
    for spec in specs:
        for twin in _twins(spec):
            by_text.setdefault(spec_text(twin), twin)
    quiet = {spec_text(_unattacked(spec)) for spec in by_text.values() if _is_quiet(spec)}
    for spec in list(by_text.values()):
        unattacked = _unattacked(spec)
        text = spec_text(unattacked)
        if text not in quiet:
            by_text.setdefault(text, unattacked)
    by_id: dict[str, Spec] = {}
    for spec in by_text.values():
        by_id.setdefault(spec.id, spec)
    return list(by_id.values())


def _twins(spec: Spec) -> list[Spec]:
    """Without the defense, and both while the trigger is dormant, where there is one."""
    both = [spec.replace(defense=()), spec]
    trigger = tuple(stage for stage in spec.attack if plugins.attack_facts(stage.name).trigger)
    dormant = [item.replace(attack=trigger, dormant=True) for item in both] if trigger else []
    return [both[0], *dormant]


def _unattacked(spec: Spec) -> Spec:
    """The same without any attack."""
    return spec.replace(attack=(), dormant=False)


def _is_quiet(spec: Spec) -> bool:
    """Whether nobody attacks."""
    return spec.dormant or not spec.attack


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
