"""One declaration per parameter: name, type, default, legal range, help text and search range are
the annotation.

``norm: Annotated[float, Range(1e-2, 1e2, log=True), "largest L2 norm kept"] = 1.0`` is read by
validation, by ``backstop show``, by the logged parameters, by the command line (for the fields of a
Spec) and by the search.
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

RATIO = re.compile(r"([0-9]{1,9})/([1-9][0-9]{0,8})")  # of two counts, as 8/33
LISTED = 100  # known names that a message lists at most


class BadInput(Exception):  # noqa: N818 -- it names what happened, and the command line's exit code 2
    """Bad input: one line that says what was given, what is allowed and the nearest match. The
    command line exits with 2.
    """


@dataclass(frozen=True)
class Range:
    """Legal values of a number: ``low <= value <= high`` (``<`` where open). ``search`` narrows
    what a search tries.
    """

    low: float
    high: float
    log: bool = False
    low_open: bool = False
    high_open: bool = False
    search: tuple[float, float] | None = None

    def __contains__(self, value: float) -> bool:
        """Whether the value is legal; NaN never is."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        """Interval notation, e.g. ``[0, 0.5)``."""
        return (
            f"{'(' if self.low_open else '['}{self.low:g}, "
            f"{self.high:g}{')' if self.high_open else ']'}"
        )


class Parameter(NamedTuple):
    """A parameter as its annotation declares it."""

    name: str
    types: tuple[type, ...]  # allowed Python types, NoneType included where None is legal
    choices: tuple[Any, ...]  # of a Literal; legal besides the types
    range: Range | None
    default: Any  # inspect.Parameter.empty where there is none
    text: str

    @property
    def allowed(self) -> str:
        """What is legal, in words."""
        names = {
            int: "an integer",
            float: "a number",
            str: "text",
            bool: "true or false",
            type(None): "none",
        }
        options = [
            names[kind] + (f" in {self.range}" if self.range and kind in (int, float) else "")
            for kind in self.types
        ]
        return " or ".join([*options, *(str(choice) for choice in self.choices)])


def nearest(given: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest known one, or all of them when nothing is near."""
    names = sorted(known)
    match = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    listed = names if len(names) <= LISTED else [*names[:LISTED], "…"]
    return f"did you mean {match[0]!r}?" if match else f"known: {', '.join(listed) or 'none'}"


def declare(name: str, annotation: Any, default: Any) -> Parameter:
    """Read one annotation. Raises TypeError for a type that a parameter cannot have."""
    found: dict[type, Any] = {}
    if get_origin(annotation) is Annotated:
        annotation, *extra = get_args(annotation)
        found = {type(item): item for item in extra}
    members = (
        get_args(annotation)
        if get_origin(annotation) in (Union, types.UnionType)
        else (annotation,)
    )
    kinds: list[type] = []
    choices: list[Any] = []
    for member in members:
        if get_origin(member) is Literal:
            choices += get_args(member)
        elif member in (bool, int, float, str, type(None)):
            kinds.append(member)
        else:
            raise TypeError(
                f"parameter {name!r}: {member!r} is none of bool, int, float, str, None and Literal"
            )
    return Parameter(
        name, tuple(kinds), tuple(choices), found.get(Range), default, found.get(str, "")
    )


def schema(factory: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters of a factory, in the order of its signature. All are keyword-only, annotated
    and have defaults.
    """
    hints = get_type_hints(factory, include_extras=True)
    declared = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        if (
            parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            or name not in hints
            or parameter.default is parameter.empty
        ):
            raise TypeError(
                f"{factory.__name__}: parameter {name!r} must be keyword-only, annotated and have "
                "a default"
            )
        declared[name] = declare(name, hints[name], parameter.default)
    return declared


def check(parameter: Parameter, value: Any, where: str) -> Any:
    """The value in the parameter's type (an int becomes a float where only floats are legal, and so
    does the text of a ratio such as 8/33, which has no exact decimal), or BadInput.
    """
    if any(value == choice and type(value) is type(choice) for choice in parameter.choices):
        return value
    given = value
    if isinstance(value, str) and float in parameter.types and str not in parameter.types:
        ratio = RATIO.fullmatch(value)
        value = int(ratio[1]) / int(ratio[2]) if ratio else value
    if type(value) is int and float in parameter.types and int not in parameter.types:
        value = float(value)
    legal = type(value) in parameter.types
    if legal and parameter.range is not None and type(value) in (int, float):
        legal = value in parameter.range
    if not legal:
        hint = (
            f"; {nearest(value, map(str, parameter.choices))}"
            if parameter.choices and isinstance(value, str)
            else ""
        )
        if str in parameter.types and not isinstance(value, str):
            hint = f"; as text write {parameter.name}={str(value)!r}"
        shown = given if isinstance(given, str) else value
        raise BadInput(
            f"{where}: {parameter.name}={shown!r} is not allowed; {parameter.name} is "
            f"{parameter.allowed}{hint}"
        )
    return value


def fill(declared: Mapping[str, Parameter], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All parameters, defaults filled in, every given value checked."""
    for name in given:
        if name not in declared:
            raise BadInput(f"{where}: unknown parameter {name!r}; {nearest(name, declared)}")
    return {
        name: check(parameter, given[name], where) if name in given else parameter.default
        for name, parameter in declared.items()
    }


def check_label(label: int | None, classes: int, where: str) -> None:
    """Raise BadInput where a label (None: no label) is none of a dataset's classes, which only the
    data tell.
    """
    if label is not None and not 0 <= label < classes:
        raise BadInput(
            f"{where}={label} is none of the dataset's {classes} classes, 0 to {classes - 1}"
        )
