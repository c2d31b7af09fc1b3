"""The folder is the registry: every file in attacks/, defenses/, datasets/, models/ and
search_spaces/ is a plug-in.

Other packages add theirs through the entry-point groups ``backstop.attacks`` and so on; the entry
point names the factory. A loose file anywhere goes by its path, or by its name where it was given
(:mod:`backstop.platform.loose`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from backstop.platform import loose
from backstop.platform.declarations.facts import (
    KNOWS,
    NEEDS,
    AttackFacts,
    DefenseFacts,
    Facts,
    Kind,
    SearchSpaceFacts,
    constants,
    read_facts,
)
from backstop.platform.declarations.outline import outline
from backstop.platform.params import BadInput, Parameter, fill, nearest, schema

PACKAGES = {
    "attacks": "backstop.attacks",
    "defenses": "backstop.defenses",
    "datasets": "backstop.platform.datasets",
    "models": "backstop.platform.models",
    "search_spaces": "backstop.search_spaces",
}
SINGULAR = {group: group.removesuffix("s").replace("_", " ") for group in PACKAGES}
EMPTY_CHAINS = ("none", "fedavg")  # no file may be called so either
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Plugin(NamedTuple):
    """A plug-in as its file declares it."""

    name: str
    factory: Callable[..., Any]
    parameters: Mapping[str, Parameter]
    sheet: str  # the module's docstring, its data sheet
    facts: Facts  # its constants in capitals

    @property
    def version(self) -> int:
        """Raised when the plug-in's numbers change; part of the id of every spec that uses it."""
        return self.facts.version

    @property
    def summary(self) -> str:
        r"""The first paragraph of the data sheet, on one line.

        >>> sheet = "A thing that takes\ntwo lines.\n\nMore."
        >>> Plugin("x", list, {}, sheet, SearchSpaceFacts()).summary
        'A thing that takes two lines.'
        """
        first, _, _ = self.sheet.strip().partition("\n\n")
        return " ".join(first.split())

    @property
    def source(self) -> str:
        """The data sheet's paragraph on where the method comes from; empty where there is none."""
        return self.section("Source")

    def section(self, title: str) -> str:
        r"""A paragraph of the data sheet that begins with ``title:``, on one line; empty where
        there is none.

        >>> sheet = "A thing.\n\nChecked: by\nhand."
        >>> Plugin("x", list, {}, sheet, SearchSpaceFacts()).section("Checked")
        'by hand.'
        """
        paragraphs = (" ".join(paragraph.split()) for paragraph in self.sheet.split("\n\n"))
        opening = f"{title}: "
        return next(
            (text.removeprefix(opening) for text in paragraphs if text.startswith(opening)), ""
        )


@lru_cache
def sources(group: str) -> Mapping[str, str]:
    """Name → where it comes from (``module:attribute``), in alphabetical order. Two sources of one
    name are refused.
    """
    package = importlib.import_module(PACKAGES[group])
    origins = {
        info.name: f"{PACKAGES[group]}.{info.name}:{info.name}"
        for info in pkgutil.iter_modules(package.__path__)
        if not info.name.startswith("_")
    }
    for point in entry_points(group=f"backstop.{group}"):
        if point.name in origins:
            twice = f"{origins[point.name]} and {point.value}"
            raise BadInput(f"{SINGULAR[group]} {point.name!r} is defined twice: {twice}")
        origins[point.name] = point.value
    return dict(sorted(origins.items()))


def names(group: str) -> list[str]:
    """The names in a group, in alphabetical order; nothing is imported."""
    return list(sources(group))


def find(group: str, name: str) -> Plugin:
    """Import one plug-in, which is named as in a list, by the path of a loose file, or as a spec
    names such a file.

    Raises BadInput where the name is unknown or the file cannot be used.
    """
    return _find(group, full_name(group, name))


def full_name(group: str, name: str) -> str:
    """The name of a plug-in in a spec: that of a loose file says what the file holds. Raises
    BadInput where a path leads to no file that can be one.
    """
    if loose.is_path(name):
        path, attribute = loose.split_path(name)
        if _own_name(group, path):
            return Path(path).stem
        return loose.name_of(loose.know(_loose_file(path)), attribute)
    return loose.given_name(name) if loose.GIVEN else name


def give_file(path: str) -> None:
    """Let a loose file go by its name in this process. Raises BadInput where it cannot."""
    loose.give(_loose_file(path))


def _loose_file(path: str) -> loose.LooseFile:
    """A file at a path. Raises BadInput where it has the name of a plug-in that is there without
    it.
    """
    file = loose.read_file(path)
    if file.stem in EMPTY_CHAINS:
        raise BadInput(
            f"plug-in {path}: {file.stem!r} is no stage at all; give the file and its function"
            " another name"
        )
    group = owner(file.stem)
    if group is not None:
        module, _, _ = sources(group)[file.stem].partition(":")
        raise BadInput(
            f"plug-in {path}: there is a {SINGULAR[group]} {file.stem!r} already ({module});"
            " give the file and its function another name"
        )
    return file


def _own_name(group: str, path: str) -> bool:
    """Whether a path leads to a file of this package, which goes by its name."""
    place = Path(path).expanduser()
    try:
        return own_file(group, place.stem).samefile(place)
    except OSError:
        return False


@lru_cache
def _find(group: str, name: str) -> Plugin:
    """What :func:`find` finds, by its full name."""
    if loose.is_full_name(name):
        return _find_loose(group, name)
    known = sources(group)
    if name not in known:
        raise BadInput(f"unknown {SINGULAR[group]} {name!r}; {_near(name, known)}")
    module, _, attribute = known[name].partition(":")
    try:
        return read_plugin(importlib.import_module(module), group, attribute or name, name)
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        raise BadInput(
            f"{SINGULAR[group]} {name!r} ({module}) cannot be used: {type(error).__name__}: {error}"
        ) from error


def _near(name: str, known: Iterable[str]) -> str:
    """What may be meant by a name that is not known."""
    stem, _, attribute = name.partition(":")
    if Path(f"{stem}.py").is_file():
        return f"if it is the file, say ./{stem}.py{':' * bool(attribute)}{attribute}"
    return nearest(name, known)


def _find_loose(group: str, name: str) -> Plugin:
    """A plug-in from a loose file that this process knows."""
    what = SINGULAR[group]
    file = loose.file_of(name, what)
    short = loose.short_name(name)
    where = f"{what} {file.place or short}"
    module = loose.import_file(file, where)
    attribute = short.partition(":")[2] or file.stem
    if not callable(getattr(module, attribute, None)):
        hint = ", named as the file" if attribute == file.stem else ""
        raise BadInput(f"{where} has no function {attribute}(){hint}{_others(module)}")
    try:
        if group == "models" and ":" in short:
            return _own_model(module, attribute, name)
        return read_plugin(module, group, attribute, name)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{where} cannot be used: {type(error).__name__}: {error}") from error


def _own_model(
    module: ModuleType,
    attribute: str,
    name: str,
) -> Plugin:
    """A module of torch, or a function that makes one, as a model."""
    from backstop.platform.declarations import own_models

    made = own_models.read_model(getattr(module, attribute), loose.short_name(name))
    sheet = inspect.getdoc(getattr(module, attribute)) or inspect.getdoc(module) or ""
    facts = read_facts("models", vars(module), made.parameters, str(module.__file__))
    return Plugin(name, made.factory, made.parameters, sheet, facts)


def _others(module: ModuleType) -> str:
    """What of a loose file may be meant instead, in words; empty where there is nothing."""
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    return f"; it has {', '.join(own)}: say FILE:NAME" if own else ""


def read_plugin(
    module: ModuleType,
    group: str,
    attribute: str,
    name: str,
) -> Plugin:
    """A plug-in from its module."""
    factory = getattr(module, attribute)
    parameters = schema(factory)
    file = str(getattr(module, "__file__", None) or module.__name__)
    return Plugin(
        name,
        factory,
        parameters,
        inspect.getdoc(module) or inspect.getdoc(factory) or "",
        read_facts(group, vars(module), parameters, file),
    )


def describe(group: str, name: str) -> Plugin:
    """The plug-in that :func:`find` finds, without its imports where its file says all there is to
    say: to list plug-ins, or to check a spec, need not wait for torch. Its factory imports the file
    when it is called.
    """
    return _describe(group, full_name(group, name))


@lru_cache
def _describe(group: str, name: str) -> Plugin:
    """What :func:`describe` describes, by its full name."""
    try:
        file = own_file(group, name)
        module = outline(file, name, constants(group))
        described = read_plugin(module, group, name, name)
    except BadInput:
        raise
    except Exception:  # noqa: BLE001 -- whatever it is, the import says what is wrong, if anything
        return _find(group, name)
    return described._replace(factory=lambda **params: find(group, name).factory(**params))


def own_file(group: str, name: str) -> Path:
    """The file of a plug-in of this package. Raises FileNotFoundError where another brings it."""
    package = importlib.import_module(PACKAGES[group])
    files = (Path(folder, f"{name}.py") for folder in package.__path__)
    if sources(group).get(name) == f"{package.__name__}.{name}:{name}":
        for file in files:
            if file.is_file():
                return file
    raise FileNotFoundError(f"{SINGULAR[group]} {name} is no file of {package.__name__}")


def folder(group: str) -> Path:
    """The folder of this package's own plug-ins of a group."""
    package = importlib.import_module(PACKAGES[group])
    return Path(next(iter(package.__path__)))


def attack_facts(name: str) -> AttackFacts:
    """The facts of an attack."""
    facts = describe("attacks", name).facts
    assert isinstance(facts, AttackFacts)
    return facts


def defense_facts(name: str) -> DefenseFacts:
    """The facts of a defense."""
    facts = describe("defenses", name).facts
    assert isinstance(facts, DefenseFacts)
    return facts


def kinds(group: str, name: str) -> tuple[Kind, ...]:
    """The kinds of data that a plug-in is for; empty: any."""
    facts = describe(group, name).facts
    return () if isinstance(facts, SearchSpaceFacts) else facts.kinds


@lru_cache
def digest(group: str, name: str) -> str:
    """12 hexadecimal digits that change with the code of a plug-in's file, another package's too.

    Comments, docstrings and layout do not count. Empty where the source is not there.
    """
    plugin = find(group, name)
    try:
        if loose.is_full_name(plugin.name):
            source = loose.file_of(plugin.name, SINGULAR[group]).text.encode()
        else:
            module = inspect.getmodule(plugin.factory)
            source = Path(str(getattr(module, "__file__", ""))).read_bytes()
        text = "".join(_syntax(ast.parse(source)))
    except (OSError, SyntaxError, ValueError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _syntax(node: object) -> Iterator[str]:
    """A syntax tree as text. What is empty is left out: versions of Python differ in it."""
    if isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for field, value in ast.iter_fields(node):
            described = field == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node)
            members = value[1:] if described else value
            if members not in (None, []):
                yield f"{field}="
                yield from _syntax(members)
        yield ")"
    elif isinstance(node, list):
        for member in node:
            yield from _syntax(member)
    else:
        yield f"{node!r},"


def build(
    group: str,
    name: str,
    params: Mapping[str, Any],
) -> Any:
    """Call a plug-in's factory with checked parameters."""
    plugin = find(group, name)
    return plugin.factory(**fill(plugin.parameters, params, f"{SINGULAR[group]} {name}"))


def needs(stages: Iterable[str]) -> list[str]:
    """What a chain of defenses needs to know, in words; stages that are not there any more say
    nothing.
    """
    there = (name for name in stages if is_there("defenses", name))
    needed = {need for name in there for need in defense_facts(name).needs}
    return [words for need, words in NEEDS.items() if need in needed]


def knows(stages: Iterable[str]) -> str:
    """What a chain of attacks knows, in words: the most that any of its stages does; empty without
    stages.
    """
    levels = list(KNOWS)
    there = (name for name in stages if is_there("attacks", name))
    reached = [levels.index(attack_facts(name).knows) for name in there]
    return KNOWS[levels[max(reached)]] if reached else ""


def aims(stages: Iterable[str]) -> bool:
    """Whether a chain of attacks says what a success is; stages that are not there any more say
    nothing.
    """
    there = (name for name in stages if is_there("attacks", name))
    return any(attack_facts(name).trigger for name in there)


def is_there(group: str, name: str) -> bool:
    """Whether a plug-in of a stored spec is there; a loose file may not be."""
    return loose.is_here(name) if loose.is_full_name(name) else name in sources(group)


def owner(name: str) -> str | None:
    """The group that holds a name, or None."""
    return next((group for group in PACKAGES if name in sources(group)), None)


def load_file(path: str, group: str) -> Plugin:
    """A plug-in from a file outside the package (a search space given by path); its factory has the
    file's name.
    """
    file = Path(path)
    where = f"{SINGULAR[group]} {path}"
    module = _import_file(file, f"backstop_{group}_{file.stem}", where)
    if not callable(getattr(module, file.stem, None)):
        raise BadInput(f"{where} has no function {file.stem}(), named as the file")
    return read_plugin(module, group, file.stem, file.stem)


def _import_file(
    file: Path,
    name: str,
    where: str,
) -> ModuleType:
    """A file imported as the module ``name``. BadInput, which begins with ``where``, if it cannot
    be.
    """
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(name, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise BadInput(f"{where}: there is no such Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BadInput:
        raise
    except BaseException as error:
        raise BadInput(f"{where} raised {type(error).__name__}: {error}") from error
    return module
