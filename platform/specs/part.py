"""Parts and chains as text, both ways; plug-ins by name, with their defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backstop.platform import plugins, vault
from backstop.platform.params import BadInput, fill
from backstop.platform.specs import notation
from backstop.platform.specs.notation import NEXT_ADVERSARY

Scalar = bool | int | float | str | None


class Part(NamedTuple):
    """A plug-in by name, with parameters. Text form: ``badnets(size=3)``."""

    name: str
    params: Mapping[str, Scalar] = {}

    def __str__(self) -> str:
        """The text form, parameters in alphabetical order; text that would not be read back as it
        stands is quoted.
        """
        if self.name == NEXT_ADVERSARY:
            return NEXT_ADVERSARY
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


def plugin_stages(chain: Sequence[Part]) -> tuple[Part, ...]:
    """The stages of a chain that are plug-ins: all but what stands between adversaries."""
    return tuple(stage for stage in chain if stage.name != NEXT_ADVERSARY)


def chains_apart(chain: Sequence[Part]) -> tuple[tuple[Part, ...], ...]:
    """The chain of each adversary; of one or of none a single chain.

    >>> [len(stages) for stages in chains_apart(parse_chain("badnets+pgd | sig"))]
    [2, 1]
    """
    chains: list[list[Part]] = [[]]
    for stage in chain:
        if stage.name == NEXT_ADVERSARY:
            chains.append([])
        else:
            chains[-1].append(stage)
    return tuple(map(tuple, chains))


def stages_text(words: Sequence[str], sign: str = "+") -> str:
    """The words of a chain's stages as one text, with this sign between them.

    >>> stages_text(["badnets", "pgd", "|", "sig"])
    'badnets+pgd | sig'
    """
    chains: list[list[str]] = [[]]
    for word in words:
        if word == NEXT_ADVERSARY:
            chains.append([])
        else:
            chains[-1].append(word)
    return f" {NEXT_ADVERSARY} ".join(map(sign.join, chains))


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
    return stages_text(list(map(str, stages))) or NOTHING[role]


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
    chain = tuple(stage for stage in _all_stages(given) if stage.name != nothing)
    _check_apart(chain, role, given)
    return chain


def _check_apart(chain: Sequence[Part], role: str, given: object) -> None:
    """BadInput where a chain of something else than attacks falls into several, or one is empty."""
    chains = chains_apart(chain)
    if len(chains) == 1:
        return
    if role != "attack":
        raise BadInput(
            f"{role} {given!r}: {NEXT_ADVERSARY} stands between the attacks of several adversaries;"
            f" a {role} is one chain, its stages joined by +"
        )
    if not all(chains):
        raise BadInput(
            f"attack {given!r}: an adversary has no stage; each side of {NEXT_ADVERSARY} is a chain"
            " of attacks, such as 'badnets(target=0) | badnets(target=1)'"
        )


def _all_stages(given: str | Part | Sequence[Part | str]) -> tuple[Part, ...]:
    """The stages of a chain in any form."""
    if isinstance(given, str):
        return parse_chain(given)
    if isinstance(given, Part):
        return (given,)
    return tuple(parse_part(stage) for stage in given)


def complete_part(given: Part, group: str) -> Part:
    """The part with defaults filled in and every parameter checked; a loose file is named by what
    it holds, and so are files of which the content counts.
    """
    if given.name == NEXT_ADVERSARY:
        return Part(NEXT_ADVERSARY)
    plugin = plugins.describe(group, given.name)
    where = f"{plugins.SINGULAR[group]} {given.name}"
    params = fill(plugin.parameters, given.params, where)
    for name, parameter in plugin.parameters.items():
        if parameter.content is not None and params[name] is not None:
            params[name] = vault.keep_given(params[name], parameter.content, f"{where}: {name}")
    return Part(plugin.name, params)
