"""What a plug-in says of itself: the constants in capitals of its file, checked and typed.

A fact's name in capitals is its constant: ``KNOWS = "all"`` is ``AttackFacts.knows``. A fact with a
default may be left out. Other constants in capitals are the plug-in's own business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from backstop.platform.params import BadInput, Parameter, Range, check, declare, nearest

Kind = Literal["image", "text", "table"]
Knowledge = Literal["own", "defense", "all"]
Need = Literal["f", "root", "history", "clients", "model", "buffers", "validation"]
Taken = Literal["clients", "rows", "row"]
Given = Literal["rows", "mixtures", "row"]
Kept = Literal["norms", "head", "model"]

# how these are said to a reader
KNOWS: Mapping[Knowledge, str] = {
    "own": "own data",
    "defense": "the defense",
    "all": "honest updates",
}
NEEDS: Mapping[Need, str] = {
    "f": "assumed f",
    "root": "root set",
    "history": "history",
    "clients": "client change",
    "model": "model calls",
    "buffers": "BatchNorm statistics",
    "validation": "clients that score",
}
TAKES: Mapping[Taken, str] = {
    "clients": "each client's own row",
    "rows": "several rows",
    "row": "rows, or a merged one",
}
GIVES: Mapping[Given, str] = {
    "rows": "the clients' rows",
    "mixtures": "mixtures of rows",
    "row": "one merged row",
}
KEEPS: Mapping[Kept, str] = {
    "norms": "its BatchNorm layers",
    "head": "its last linear layer",
    "model": "a model of its own",
}

Version = Annotated[
    int, Range(1, 10**9), "raised when the plug-in's numbers change; part of the id of its specs"
]
Kinds = Annotated[tuple[Kind, ...], "kinds of data that it is for; left out: any"]
Exempt = Annotated[tuple[str, ...], "laws of tests/laws that its definition rules out"]


@dataclass(frozen=True, kw_only=True)
class AttackFacts:
    """The facts of an attack."""

    version: Version = 1
    kinds: Kinds = ()
    knows: Annotated[Knowledge, "what it knows besides the global model"] = "own"
    strength: Annotated[str | None, "its parameter that attack.strength stands for"] = None
    trigger: Annotated[bool, "whether it defines what success is"]
    untargeted: Annotated[bool, "whether it only does damage"] = False
    data_free: Annotated[bool, "whether clients without a sample can run it"] = False
    exempt: Exempt = ()


@dataclass(frozen=True, kw_only=True)
class DefenseFacts:
    """The facts of a defense."""

    version: Version = 1
    kinds: Kinds = ()
    needs: Annotated[tuple[Need, ...], "what it must be given"] = ()
    takes: Annotated[Taken, "what it is put on"] = "rows"
    gives: Annotated[Given, "what it leaves to the next stage"] = "rows"
    predicts: Annotated[str | None, "its parameter that is 0 where it does not label inputs"] = None
    keeps: Annotated[Kept | None, "what each client has of its own, which is measured then"] = None
    repairs: Annotated[bool, "whether all that it does is to change the final model"] = False
    exempt: Exempt = ()


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """The facts of a dataset."""

    version: Version = 1
    kinds: Kinds = ()


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The facts of a model."""

    version: Version = 1
    kinds: Kinds = ()


@dataclass(frozen=True, kw_only=True)
class SearchSpaceFacts:
    """The facts of a search space: none that a result depends on."""

    version: Version = 1


Facts = AttackFacts | DefenseFacts | DatasetFacts | ModelFacts | SearchSpaceFacts
FACTS: Mapping[str, type[Facts]] = {
    "attacks": AttackFacts,
    "defenses": DefenseFacts,
    "datasets": DatasetFacts,
    "models": ModelFacts,
    "search_spaces": SearchSpaceFacts,
}


class _Declared(NamedTuple):
    """A fact as its annotation declares it."""

    constant: str
    member: Parameter  # the value, or each member of a tuple
    is_tuple: bool
    required: bool


@lru_cache
def _declared(group: str) -> Mapping[str, _Declared]:
    """The facts of a group's plug-ins by the names of their fields."""
    hints = get_type_hints(FACTS[group], include_extras=True)
    return {item.name: _declare(item, hints[item.name]) for item in fields(FACTS[group])}


def _declare(item: Field[Any], hint: Any) -> _Declared:
    annotation, *extra = get_args(hint)
    is_tuple = get_origin(annotation) is tuple
    if is_tuple:
        annotation = get_args(annotation)[0]
    constant = item.name.upper()
    member = declare(constant, Annotated[(annotation, *extra)], item.default)
    return _Declared(constant, member, is_tuple, item.default is MISSING)


def constants(group: str) -> list[str]:
    """The names of the constants that are facts of a group's plug-ins."""
    return [declared.constant for declared in _declared(group).values()]


def read_facts(
    group: str,
    given: Mapping[str, Any],
    parameters: Mapping[str, Parameter],
    file: str,
) -> Facts:
    """The facts among a module's names. Raises BadInput for one that is missing or wrong: one line
    that names the file and the constant.

    >>> read_facts("defenses", {"NEEDS": ("f",), "LARGEST": 3}, {}, "krum.py").needs
    ('f',)
    >>> read_facts("attacks", {"TRIGGER": 1}, {}, "mine.py")
    Traceback (most recent call last):
    backstop.platform.params.BadInput: mine.py: TRIGGER=1 is not allowed; TRIGGER is true or false
    """
    found = {}
    for name, declared in _declared(group).items():
        if declared.constant in given:
            found[name] = _checked(declared, given[declared.constant], file)
        elif declared.required:
            text, allowed = declared.member.text, declared.member.allowed
            raise BadInput(
                f"{file}: {declared.constant} is missing; {declared.constant} is {allowed}, {text}"
            )
    facts = FACTS[group](**found)
    _check_parameter(facts, parameters, file)
    return facts


def _checked(
    declared: _Declared,
    value: Any,
    file: str,
) -> Any:
    if not declared.is_tuple:
        return check(declared.member, value, file)
    if not isinstance(value, tuple | list):
        name, allowed = declared.constant, declared.member.allowed
        raise BadInput(f"{file}: {name}={value!r} is not allowed; {name} is a tuple of {allowed}")
    return tuple(check(declared.member, member, file) for member in value)


def _check_parameter(
    facts: Facts,
    parameters: Mapping[str, Parameter],
    file: str,
) -> None:
    """STRENGTH and PREDICTS name a parameter of the plug-in."""
    constant, name = "", None
    if isinstance(facts, AttackFacts):
        constant, name = "STRENGTH", facts.strength
    elif isinstance(facts, DefenseFacts):
        constant, name = "PREDICTS", facts.predicts
    if name is not None and name not in parameters:
        hint = nearest(name, parameters)
        raise BadInput(f"{file}: {constant}={name!r} is none of its parameters; {hint}")
