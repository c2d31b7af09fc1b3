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
        name = notation.write_name(self.name)
        if not self.params:
            return name
        written = []
        for key, value in sorted(self.params.items()):
            written.append(f"{key}={notation.write(value)}")
        return f"{name}({', '.join(written)})"


NOTHING = {"attack": "none", "defense": "fedavg"}  # the names of the empty chains
GROUPS = {
    "dataset": "datasets",
    "model": "models",
    "attack": "attacks",
    "defense": "defenses",
}


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
    parts = parse_chain(given) if isinstance(given, str) else (given,)
    if len(parts) != 1:
        raise BadInput(f"{given!r} names {len(parts)} plug-ins where exactly one is needed")
    return parts[0]


def to_chain(given: str | Part | Sequence[Part | str], role: str) -> tuple[Part, ...]:
    """A chain from any form, without the stages that do nothing (``none``, ``fedavg``)."""
    nothing = NOTHING[role]
    if isinstance(given, str) and not given.strip():
        raise BadInput(f"{role} {given!r} names no stage; no {role} at all is {nothing}")
    return tuple(stage for stage in _all_stages(given) if stage.name != nothing)


def _all_stages(given: str | Part | Sequence[Part | str]) -> tuple[Part, ...]:
    """The stages of a chain in any form."""
    if isinstance(given, str):
        return parse_chain(given)
    if isinstance(given, Part):
        return (given,)
    return tuple(parse_part(stage) for stage in given)


def complete_part(given: Part, group: str) -> Part:
    """The part with defaults filled in and every parameter checked; a loose file is named by what
    it holds.
    """
    plugin = plugins.find(group, given.name)
    where = f"{plugins.SINGULAR[group]} {given.name}"
    return Part(plugin.name, fill(plugin.parameters, given.params, where))
