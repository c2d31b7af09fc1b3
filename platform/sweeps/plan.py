"""From a search space to what will be run: an ordered list of distinct, validated specs, before any
worker exists.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from backstop.platform import plugins
from backstop.platform.params import BadInput
from backstop.platform.rounds import starts
from backstop.platform.specs.change import change_spec, names_something
from backstop.platform.specs.part import NOTHING, Scalar, chain_text
from backstop.platform.specs.spec import (
    Search,
    Spec,
    spec_text,
    spec_title,
    spec_to_json,
    validate,
)

Finals = Mapping[str, float]  # the final metrics of one run
LISTED = 5  # of what a change does not reach, one line names at most


class Source(Protocol):
    """Where specs come from, generation by generation: a fixed plan has one, a search asks for the
    next when one is done.
    """

    def ask(self) -> list[Spec]:
        """The specs of the next generation; empty when there is none."""

    def tell(self, results: Mapping[str, Finals | None]) -> None:
        """Final metrics of all specs asked for so far by id; None for a run that failed."""

    def expected(self) -> int:
        """Runs in all, those asked for and those to come, as far as that can be told."""


def load_space(name: str) -> list[Spec] | Search:
    """A search space by its name in search_spaces/, or by the path of a Python file. Raises
    BadInput if it cannot be used.
    """
    file = name.endswith(".py") or "/" in name
    plugin = (
        plugins.load_file(name, "search_spaces") if file else plugins.find("search_spaces", name)
    )
    try:
        found = plugin.factory()
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"search space {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(found, Search) and not (
        isinstance(found, Sequence) and found and all(isinstance(item, Spec) for item in found)
    ):
        raise BadInput(
            f"search space {name} must return a non-empty list of Specs or a Search, not {type(found).__name__}"
        )
    return found if isinstance(found, Search) else list(found)


def with_overrides(
    found: list[Spec] | Search,
    changes: Mapping[str, Scalar],
    seeds: Sequence[int] | None,
    say: Callable[[str], None],
) -> list[Spec] | Search:
    """The space with ``--set`` applied to every spec that has what it names and ``--seeds`` in
    place of its own seeds. Doubles that this makes are dropped. ``say`` gets a line where a change
    leaves some specs as they are.
    """
    if seeds is not None and "seed" in changes:
        raise BadInput(
            f"--set seed={changes['seed']} and --seeds both say which seeds; give one of them (--seeds N, is seed N alone)"
        )
    start = changes.get("start")
    if isinstance(start, str):  # the path of a checkpoint, or the name of a kept one
        changes = {**changes, "start": starts.keep_start(start)}
    if isinstance(found, Search):
        return _altered_search(found, changes, seeds)
    if not changes and seeds is None:
        return found
    listed = found
    for key, new in changes.items():
        listed = _changed(listed, key, new, say)
    if seeds is not None:
        listed = [spec.replace(seed=seed) for seed in seeds for spec in listed]
    return list({spec.id: spec for spec in listed}.values())


def _altered_search(
    found: Search, changes: Mapping[str, Scalar], seeds: Sequence[int] | None
) -> Search:
    base = found.base
    for key, new in changes.items():
        if key in found.free:
            raise BadInput(f"--set {key}: the search proposes it, so its value would not be used")
        base = change_spec(base, key, new)
    if seeds is None:
        seeds = (base.seed,) if "seed" in changes else found.seeds
    return dataclasses.replace(found, base=base, seeds=tuple(seeds))


def _changed(listed: list[Spec], key: str, new: Scalar, say: Callable[[str], None]) -> list[Spec]:
    """The specs with one change where they have what it names. BadInput where none has."""
    lacking = [spec for spec in listed if not names_something(spec, key)]
    if not lacking:
        return [change_spec(spec, key, new) for spec in listed]
    if len(lacking) == len(listed):
        fullest = max(listed, key=lambda spec: len(spec.attack) + len(spec.defense))
        validate(change_spec(fullest, key, new))  # says what is wrong, and what is near
    head = key.partition(".")[0]
    said = list(dict.fromkeys(_named(spec, head) for spec in lacking))
    more = f" and {len(said) - LISTED} others" if len(said) > LISTED else ""
    say(
        f"--set {key} changes {len(listed) - len(lacking)} of {len(listed)} specs; without it: {head} {', '.join(said[:LISTED])}{more}"
    )
    return [change_spec(spec, key, new) if names_something(spec, key) else spec for spec in listed]


def _named(spec: Spec, head: str) -> str:
    """One part of a spec in words."""
    return chain_text(getattr(spec, head), head) if head in NOTHING else str(getattr(spec, head))


def distinct(found: Iterable[Spec]) -> list[Spec]:
    """The specs validated, in order. Two with one id are refused: one of them is a slip."""
    listed: dict[str, Spec] = {}
    for spec in found:
        if spec.id in listed:
            raise BadInput(
                f"the space holds one spec twice: {spec_title(spec)}, seed {spec.seed}, id {spec.id[:12]}"
            )
        listed[spec.id] = validate(spec)
    return list(listed.values())


def with_twins(found: Sequence[Spec]) -> list[Spec]:
    """The specs, and after them what the leaderboard compares them with where it is missing: for
    every setting and seed undefended FedAvg under the same attack, without any attack, and, for the
    natural success of the attack's inputs, under the trigger alone while it is dormant.
    """
    listed = {spec_text(spec): spec for spec in found}
    for spec in found:
        for twin in _twins(spec):
            listed.setdefault(spec_text(twin), twin)
    by_id: dict[str, Spec] = {}
    for spec in listed.values():
        by_id.setdefault(spec.id, spec)
    return list(by_id.values())


def _twins(spec: Spec) -> list[Spec]:
    undefended = spec.replace(defense=())
    unattacked = undefended.replace(attack=(), dormant=False)
    trigger = tuple(stage for stage in spec.attack if plugins.attack_facts(stage.name).trigger)
    dormant = [undefended.replace(attack=trigger, dormant=True)] if trigger else []
    return [undefended, unattacked, *dormant]


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


class Fixed:
    """A plan that is known from the start: one generation."""

    def __init__(self, planned: Sequence[Spec]) -> None:
        """Take the specs in order."""
        self.planned, self.size = list(planned), len(planned)

    def ask(self) -> list[Spec]:
        """All specs the first time, nothing after that."""
        planned, self.planned = self.planned, []
        return planned

    def tell(self, results: Mapping[str, Finals | None]) -> None:
        """A fixed plan learns nothing."""

    def expected(self) -> int:
        """All that was planned."""
        return self.size


class Unstored(NamedTuple):
    """Why a run that is done is not in the store."""

    reason: str
    kept: bool  # in its checkpoint, from where it can be sent


class Queue:
    """What is left to run, generation by generation: the next one is asked for when the last is
    done, and is told in full.
    """

    def __init__(self, source: Source, done: Mapping[str, Finals]) -> None:
        """``done``: the final metrics of finished runs by id. Nothing is asked for before
        :meth:`fill`.
        """
        self.source = source
        self.results: dict[str, Finals | None] = dict(done)
        self.specs: dict[str, Spec] = {}
        self.waiting: list[Spec] = []
        self.skipped = 0
        self.unstored: dict[str, Unstored] = {}  # runs that are done and could not be stored
        self.failures: dict[str, str] = {}  # runs that failed for good, and why
        self.findings: list[str] = []  # where a run is not what another process has stored
        self._asked = False

    @property
    def expected(self) -> int:
        """Runs in all, the finished ones among them."""
        return self.source.expected()

    def unfinished(self) -> bool:
        """Whether some run that was asked for has not ended."""
        return any(spec_id not in self.results for spec_id in self.specs)

    def fill(self) -> bool:
        """Go on to the next generation that holds something to run; False when the source has no
        more.
        """
        while not self.waiting:
            if self._asked:
                self.source.tell(self.results)
            self._asked = True
            generation = {spec.id: spec for spec in self.source.ask()}
            if not generation:
                return False
            new = {
                spec_id: spec for spec_id, spec in generation.items() if spec_id not in self.specs
            }
            self.skipped += sum(spec_id in self.results for spec_id in new)
            self.specs |= new
            self.waiting = [spec for spec_id, spec in new.items() if spec_id not in self.results]
        return True


def run_words(spec: Spec) -> str:
    """A run for people: what it is of, its seed and the first digits of its id."""
    return f"{spec_title(spec)} on {spec.dataset} ({spec.model}), seed {spec.seed}"


def preflight(found: Iterable[Spec], folder: Path, device: str) -> None:
    """Set up every federation of the plan once, so that whatever a spec cannot be run for stops the
    sweep before it starts: missing or corrupt files, a split that leaves a client empty, a set of
    edge cases that is not there, a warm-up that could not be kept.
    """
    from backstop.platform.experiment import Experiment

    settings = {
        json.dumps({**spec_to_json(spec), "defense": [], "rounds": 0}, sort_keys=True): spec
        for spec in found
    }
    for spec in settings.values():
        # a warm-up is work, to be done by the workers
        experiment = Experiment(spec.replace(warmup=0), folder, device)
        if spec.warmup:
            starts.check_makeable(experiment.warm_up_key(spec))
        experiment.close()
