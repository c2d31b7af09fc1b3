"""One declaration per parameter: its annotation is type, range, help text and search range.

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
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

RATIO = re.compile(r"([0-9]{1,9})/([1-9][0-9]{0,8})")  # of two counts, as 8/33
NAMES_LISTED = 100  # known names that a message lists at most


class BadInput(Exception):  # noqa: N818 -- it names what happened, and the command line's exit code 2
    """Bad input: one line that says what was given, what is allowed and the nearest match.

    The command line exits with 2.
    """


@dataclass(frozen=True)
class Range:
    """Legal values of a number: ``low <= value <= high`` (``<`` where open).

    ``search`` narrows what a search tries.
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
        left = "(" if self.low_open else "["
        right = ")" if self.high_open else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


@dataclass(frozen=True)
class Content:
    """In an annotation: the text is the path of a file, or of a folder in which the files of some
    patterns count. A spec names it by what it holds.
    """

    files: tuple[str, ...] = ()  # patterns, of a folder


class Parameter(NamedTuple):
    """A parameter as its annotation declares it."""

    name: str
    types: tuple[type, ...]  # allowed Python types, NoneType included where None is legal
    choices: tuple[Any, ...]  # of a Literal; legal besides the types
    range: Range | None
    default: Any  # inspect.Parameter.empty where there is none
    text: str
    content: Content | None = None

    @property
    def allowed(self) -> str:
        """What is legal, in words."""
        span = f" in {self.range}" if self.range else ""
        names = {
            int: f"an integer{span}",
            float: f"a number{span}",
            str: "text",
            bool: "true or false",
            type(None): "none",
        }
        options = [names[kind] for kind in self.types]
        return " or ".join([*options, *map(str, self.choices)])


def nearest(given: str, known: Iterable[str]) -> str:
    """A hint for a misspelled name: the nearest known one, or all of them when nothing is near."""
    names = sorted(known)
    matches = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    if matches:
        return f"did you mean {matches[0]!r}?"
    if len(names) > NAMES_LISTED:
        names = [*names[:NAMES_LISTED], "…"]
    return f"known: {', '.join(names) or 'none'}"


def declare(
    name: str,
    annotation: Any,
    default: Any,
) -> Parameter:
    """Read one annotation. Raises TypeError for a type that a parameter cannot have."""
    extras: dict[type, Any] = {}  # the range and the help text
    if get_origin(annotation) is Annotated:
        annotation, *items = get_args(annotation)
        extras = {type(item): item for item in items}
    members = (annotation,)
    if get_origin(annotation) in (Union, types.UnionType):
        members = get_args(annotation)
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
        name=name,
        types=tuple(kinds),
        choices=tuple(choices),
        range=extras.get(Range),
        default=default,
        text=extras.get(str, ""),
        content=extras.get(Content),
    )


@cache
def schema(factory: Callable[..., Any]) -> Mapping[str, Parameter]:
    """The parameters of a factory, in the order of its signature.

    All are keyword-only, annotated and have defaults.
    """
    hints = get_type_hints(factory, include_extras=True)
    declared = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        keyword_only = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        if not keyword_only or name not in hints or parameter.default is parameter.empty:
            raise TypeError(
                f"{factory.__name__}: parameter {name!r} must be keyword-only, annotated and have "
                "a default"
            )
        declared[name] = declare(name, hints[name], parameter.default)
    return declared


def check(
    parameter: Parameter,
    value: Any,
    where: str,
) -> Any:
    """The value in the parameter's type, or BadInput.

    An integer becomes a float where only floats are legal, and so does the text of a ratio such as
    8/33, which has no exact decimal.
    """
    if any(value == choice and type(value) is type(choice) for choice in parameter.choices):
        return value
    converted = _as_float(parameter, value)
    legal = type(converted) in parameter.types
    if legal and parameter.range is not None and type(converted) in (int, float):
        legal = converted in parameter.range
    if not legal:
        shown = value if isinstance(value, str) else converted
        raise BadInput(
            f"{where}: {parameter.name}={shown!r} is not allowed; {parameter.name} is "
            f"{parameter.allowed}{_hint(parameter, converted)}"
        )
    return converted


def _as_float(parameter: Parameter, value: Any) -> Any:
    """The float that an integer or the text of a ratio stands for, where only floats are legal."""
    if float not in parameter.types:
        return value
    if isinstance(value, str) and str not in parameter.types:
        ratio = RATIO.fullmatch(value)
        return int(ratio[1]) / int(ratio[2]) if ratio else value
    if type(value) is int and int not in parameter.types:
        return float(value)
    return value


def _hint(parameter: Parameter, value: Any) -> str:
    """What to write instead of an illegal value; empty where only the range says it."""
    if str in parameter.types and not isinstance(value, str):
        return f"; as text write {parameter.name}={str(value)!r}"
    if parameter.choices and isinstance(value, str):
        return f"; {nearest(value, map(str, parameter.choices))}"
    return ""


def fill(
    declared: Mapping[str, Parameter],
    given: Mapping[str, Any],
    where: str,
) -> dict[str, Any]:
    """All parameters, defaults filled in, every given value checked."""
    for name in given:
        if name not in declared:
            raise BadInput(f"{where}: unknown parameter {name!r}; {nearest(name, declared)}")
    filled = {}
    for name, parameter in declared.items():
        filled[name] = parameter.default
        if name in given:
            filled[name] = check(parameter, given[name], where)
    return filled


def check_label(
    label: int | None,
    classes: int,
    where: str,
) -> None:
    """Raise BadInput where a label (None: no label) is none of a dataset's classes."""
    if label is not None and not 0 <= label < classes:
        raise BadInput(
            f"{where}={label} is none of the dataset's {classes} classes, 0 to {classes - 1}"
        )
