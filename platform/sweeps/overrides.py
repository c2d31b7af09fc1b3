"""A search space changed from the command line: ``--set`` and ``--seeds``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from backstop.platform.params import BadInput
from backstop.platform.rounds import starts
from backstop.platform.specs.change import change_spec, names_something
from backstop.platform.specs.part import NOTHING, Scalar, chain_text, plugin_stages
from backstop.platform.specs.search import Search
from backstop.platform.specs.spec import Spec, validate

LISTED = 5  # of what a change does not reach, one line names at most


Space = list[Spec] | tuple[Search, ...]


def with_overrides(
    space: Space,
    changes: Mapping[str, Scalar],
    seeds: Sequence[int] | None,
    say: Callable[[str], None],
) -> Space:
    """The space with ``--set`` applied to every spec that has what it names, of searches to their
    bases, and ``--seeds`` in place of its own seeds, of searches those of each proposal. Doubles
    that this makes are dropped. ``say`` gets a line where a change leaves some specs as they are.
    """
    if seeds is not None:
        _check_one_source_of_seeds(changes)
    changes = _with_kept_start(changes)
    if isinstance(space, tuple):
        return _changed_searches(space, changes, seeds, say)
    if not changes and seeds is None:
        return space
    return _changed_list(space, changes, seeds, say)


def _check_one_source_of_seeds(changes: Mapping[str, Scalar]) -> None:
    """Refuse ``--set seed`` beside ``--seeds``."""
    if "seed" in changes:
        raise BadInput(
            f"--set seed={changes['seed']} and --seeds both say which seeds; "
            "give one of them (--seeds N, is seed N alone)"
        )


def _with_kept_start(changes: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """The changes with a start that is kept: given as the path of a checkpoint or by its name."""
    start = changes.get("start")
    if not isinstance(start, str):
        return changes
    return {**changes, "start": starts.keep_start(start)}


def _changed_list(
    specs: list[Spec],
    changes: Mapping[str, Scalar],
    seeds: Sequence[int] | None,
    say: Callable[[str], None],
) -> list[Spec]:
    """The specs with every change, once for each seed, without doubles."""
    for key, new in changes.items():
        specs = _changed_specs(specs, key, new, say)
    if seeds is not None:
        specs = [spec.replace(seed=seed) for seed in seeds for spec in specs]
    by_id = {spec.id: spec for spec in specs}
    return list(by_id.values())


def _changed_searches(
    searches: tuple[Search, ...],
    changes: Mapping[str, Scalar],
    seeds: Sequence[int] | None,
    say: Callable[[str], None],
) -> tuple[Search, ...]:
    bases = [search.base for search in searches]
    for key, new in changes.items():
        _check_not_proposed(searches, key)
        bases = _changed_specs(bases, key, new, say)
    changed = []
    for search, base in zip(searches, bases, strict=True):
        own = (base.seed,) if "seed" in changes else search.seeds
        changed.append(replace(search, base=base, seeds=tuple(own if seeds is None else seeds)))
    return tuple(changed)


def _check_not_proposed(searches: Sequence[Search], key: str) -> None:
    """Refuse a change of what a search proposes, or of the attacks that it gives."""
    head, _, _ = key.partition(".")
    for search in searches:
        if key in search.free or {key, head} & search.choices.keys():
            raise BadInput(f"--set {key}: the search proposes it, so its value would not be used")
        if head == "attack" and search.attacks:
            raise BadInput(
                f"--set {key}: the search has attacks of its own, {search.attacks[0]}, …"
            )


def _changed_specs(
    specs: list[Spec],
    key: str,
    new: Scalar,
    say: Callable[[str], None],
) -> list[Spec]:
    """The specs with one change where they have what it names. BadInput where none has."""
    unreached = [spec for spec in specs if not names_something(spec, key)]
    if not unreached:
        return [change_spec(spec, key, new) for spec in specs]
    if len(unreached) == len(specs):
        fullest = max(specs, key=_stage_count)
        validate(change_spec(fullest, key, new))  # says what is wrong, and what is near
    reached = len(specs) - len(unreached)
    without = _parts_listed(unreached, key)
    say(f"--set {key} changes {reached} of {len(specs)} specs; without it: {without}")
    changed = []
    for spec in specs:
        if names_something(spec, key):
            changed.append(change_spec(spec, key, new))
        else:
            changed.append(spec)
    return changed


def _stage_count(spec: Spec) -> int:
    """How many stages a spec has."""
    return len(plugin_stages(spec.attack)) + len(spec.defense)


def _parts_listed(specs: list[Spec], key: str) -> str:
    """The part that a key begins with as these specs have it, the first few of many."""
    head, _, _ = key.partition(".")
    parts = [_named(spec, head) for spec in specs]
    names = list(dict.fromkeys(parts))
    listed = ", ".join(names[:LISTED])
    if len(names) > LISTED:
        listed += f" and {len(names) - LISTED} others"
    return f"{head} {listed}"


def _named(spec: Spec, head: str) -> str:
    """One part of a spec in words."""
    if head in NOTHING:
        return chain_text(getattr(spec, head), head)
    return str(getattr(spec, head))
