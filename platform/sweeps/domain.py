"""The domain of a search: how a proposal is put together, one key after the other.

Choices come first, each in the order in which the search lists them, then what is free. A free key
counts only where the chosen chains have its stage, so parameters may depend on choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backstop.platform.params import BadInput, nearest
from backstop.platform.specs.change import change_spec
from backstop.platform.specs.part import NOTHING, Scalar, to_chain
from backstop.platform.specs.search import ADDED, Search
from backstop.platform.specs.spec import Spec, validate
from backstop.platform.sweeps.ranges import (
    Distribution,
    OptunaTrial,
    contains,
    distribution,
    full_key,
    parameter,
    suggest,
)

OWN_KEYS = ("seed", "evaluate_on")  # a search sets them itself


class Domain:
    """What a search may propose."""

    def __init__(self, search: Search) -> None:
        """Read choices and ranges. Raises BadInput for a key that does not exist or has no range,
        and for a choice that cannot be run.
        """
        self.search = search
        self.spans: dict[str, Distribution] = {}
        _check_keys(search)
        self.samples = list(self._each_choice())
        for key in search.free:
            self._check_free(key)
        for values in search.first:
            self._check_first(values)

    def _each_choice(self) -> Iterator[Spec]:
        """The base with the first of all choices, then with each of the others in its place."""
        firsts = {key: options[0] for key, options in self.search.choices.items()}
        yield validate(self.spec(firsts))
        for key, options in self.search.choices.items():
            for option in options[1:]:
                yield validate(self.spec({**firsts, key: option}))

    def _check_free(self, key: str) -> None:
        """Read its range wherever it counts; where it never does, say what is near."""
        having = [spec for spec in self.samples if full_key(spec, key) is not None]
        for spec in having or self.samples[:1]:
            self._span(spec, key)

    def _check_first(self, values: Mapping[str, Scalar]) -> None:
        """Refuse a first proposal that the sampler could not make."""
        chosen = {key: value for key, value in values.items() if key in self.search.choices}
        given = {key: value for key, value in values.items() if key not in chosen}
        for key, value in chosen.items():
            if value not in self.search.choices[key]:
                raise BadInput(f"search: first proposal: {key}={value} is not among the choices")
        firsts = {key: options[0] for key, options in self.search.choices.items()}
        spec = self.spec(firsts | chosen)
        free = {full_key(spec, key): key for key in self.search.free}
        for key, value in given.items():
            if key not in free:
                known = [full for full in free if full is not None]
                raise BadInput(f"search: first proposal: {key} is not free; {nearest(key, known)}")
            if not contains(self._span(spec, free[key]), value):
                raise BadInput(f"search: first proposal: {key}={value} is out of its search range")

    def _span(self, spec: Spec, key: str) -> Distribution:
        full = full_key(spec, key) or key
        if full not in self.spans:
            declared = parameter(spec, full)
            self.spans[full] = distribution(full, declared, self.search.ranges.get(key))
        return self.spans[full]

    def propose(self, trial: OptunaTrial) -> dict[str, Scalar]:
        """Key → value, in the order in which they are to be set."""
        values: dict[str, Scalar] = {}
        for key, options in self.search.choices.items():
            values[key] = trial.suggest_categorical(key, options)
        spec = self.spec(values)
        for key in self.search.free:
            full = full_key(spec, key)
            if full is not None:
                values[full] = suggest(trial, full, self._span(spec, key))
        return values

    def spec(self, values: Mapping[str, Any]) -> Spec:
        """The base with the proposed values."""
        spec = self.search.base
        for key, value in values.items():
            spec = _with(spec, key, value)
        return spec


def _with(
    spec: Spec,
    key: str,
    value: Scalar,
) -> Spec:
    """The spec with one thing changed, or with stages added to one of its chains."""
    role = key.removesuffix(ADDED)
    if role == key:
        return change_spec(spec, key, value, where="search")
    chain = getattr(spec, role) + to_chain(str(value), role)
    return spec.replace(**{role: chain})


def _check_keys(search: Search) -> None:
    """Refuse choices that are none, and keys that are given twice or belong to the search."""
    for key in OWN_KEYS:
        if key in search.free or key in search.choices:
            raise BadInput(f"search: {key} is not free: a search says itself what it runs on")
    for key, options in search.choices.items():
        if key in search.free:
            raise BadInput(f"search: {key!r} is free and has choices; keep one of them")
        if not options:
            raise BadInput(f"search: choices of {key!r} are empty; give one at least")
        if key.endswith(ADDED) and key.removesuffix(ADDED) not in NOTHING:
            raise BadInput(
                f"search: {key!r} adds stages to nothing; allowed: attack{ADDED}, defense{ADDED}"
            )
    for key in search.ranges:
        if key not in search.free:
            raise BadInput(
                f"search: range of {key!r}, which is not free; {nearest(key, search.free)}"
            )
