"""A search space changed from the command line: ``--set`` and ``--seeds``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from backstop.platform.params import BadInput
from backstop.platform.rounds import starts
from backstop.platform.specs.change import change_spec, names_something
from backstop.platform.specs.part import NOTHING, Scalar, chain_text
from backstop.platform.specs.spec import Search, Spec, validate

LISTED = 5  # of what a change does not reach, one line names at most


def with_overrides(
    space: list[Spec] | Search,
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
            f"--set seed={changes['seed']} and --seeds both say which seeds; "
            "give one of them (--seeds N, is seed N alone)"
        )
    start = changes.get("start")
    if isinstance(start, str):  # the path of a checkpoint, or the name of a kept one
        changes = {**changes, "start": starts.keep_start(start)}
    if isinstance(space, Search):
        return _changed_search(space, changes, seeds)
    if not changes and seeds is None:
        return space
    specs = space
    for key, new in changes.items():
        specs = _changed_specs(specs, key, new, say)
    if seeds is not None:
        specs = [spec.replace(seed=seed) for seed in seeds for spec in specs]
    return list({spec.id: spec for spec in specs}.values())


def _changed_search(
    search: Search,
    changes: Mapping[str, Scalar],
    seeds: Sequence[int] | None,
) -> Search:
    base = search.base
    for key, new in changes.items():
        if key in search.free:
            raise BadInput(f"--set {key}: the search proposes it, so its value would not be used")
        base = change_spec(base, key, new)
    if seeds is None:
        seeds = (base.seed,) if "seed" in changes else search.seeds
    return dataclasses.replace(search, base=base, seeds=tuple(seeds))


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
        fullest = max(specs, key=lambda spec: len(spec.attack) + len(spec.defense))
        validate(change_spec(fullest, key, new))  # says what is wrong, and what is near
    head = key.partition(".")[0]
    names = list(dict.fromkeys(_named(spec, head) for spec in unreached))
    more = f" and {len(names) - LISTED} others" if len(names) > LISTED else ""
    reached = f"{len(specs) - len(unreached)} of {len(specs)} specs"
    say(f"--set {key} changes {reached}; without it: {head} {', '.join(names[:LISTED])}{more}")
    return [change_spec(spec, key, new) if names_something(spec, key) else spec for spec in specs]


def _named(spec: Spec, head: str) -> str:
    """One part of a spec in words."""
    if head in NOTHING:
        return chain_text(getattr(spec, head), head)
    return str(getattr(spec, head))
