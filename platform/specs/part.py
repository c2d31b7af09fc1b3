"""Parts and chains as text, both ways; plug-ins by name, with their defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backstop.platform import plugins
from backstop.platform.params import BadInput, fill
from backstop.platform.specs import notation

Scalar = bool | int | float | str | None


class Part(NamedTuple):
    """A plug-in by name, with parameters. Text form: ``badnets(size=3)``."""

    name: str
    params: Mapping[str, Scalar] = {}

    def __str__(self) -> str:
        """The text form, parameters in alphabetical order; text that would not be read back as it
        stands is quoted.
        """
        if not self.params:
            return self.name
        return f"{self.name}({', '.join(f'{key}={notation.write(value)}' for key, value in sorted(self.params.items()))})"


NOTHING = {"attack": "none", "defense": "fedavg"}  # the names of the empty chains
GROUPS = {"dataset": "datasets", "model": "models", "attack": "attacks", "defense": "defenses"}


def parse_value(text: str) -> Scalar:
    """A scalar from its text form: ``3``, ``0.5``, ``true``, ``none``, text that needs no quotes,
    or quoted text.
    """
    return notation.read(text)


def parse_chain(text: str) -> tuple[Part, ...]:
    """The stages of a text form such as ``badnets(size=3)+model_replacement(strength=5)``.

    >>> parse_chain("norm_clip(norm=1)+median")
    (Part(name='norm_clip', params={'norm': 1}), Part(name='median', params={}))
    """
    return tuple(Part(name, params) for name, params in notation.stages(text))


def chain_text(stages: Sequence[Part], role: str) -> str:
    """The text form of a chain; the empty chain has a name too (``none``, ``fedavg``)."""
    return "+".join(map(str, stages)) or NOTHING[role]


def parse_part(given: Part | str) -> Part:
    """One part from either form."""
    found = parse_chain(given) if isinstance(given, str) else (given,)
    if len(found) != 1:
        raise BadInput(f"{given!r} names {len(found)} plug-ins where exactly one is needed")
    return found[0]


def to_chain(given: str | Part | Sequence[Part | str], role: str) -> tuple[Part, ...]:
    """A chain from any form, without the stages that do nothing (``none``, ``fedavg``)."""
    if isinstance(given, str) and not given.strip():
        raise BadInput(f"{role} {given!r} names no stage; no {role} at all is {NOTHING[role]}")
    if isinstance(given, str):
        found = parse_chain(given)
    elif isinstance(given, Part):
        found = (given,)
    else:
        found = tuple(parse_part(item) for item in given)
    return tuple(item for item in found if item.name != NOTHING[role])


def complete_part(given: Part, group: str) -> Part:
    """The part with defaults filled in and every parameter checked."""
    plugin = plugins.find(group, given.name)
    return Part(
        given.name, fill(plugin.parameters, given.params, f"{plugins.SINGULAR[group]} {given.name}")
    )
