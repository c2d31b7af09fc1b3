"""The folder is the registry: every file in attacks/, defenses/, datasets/, models/ and
search_spaces/ is a plug-in.

Other packages add theirs through the entry-point groups ``backstop.attacks`` and so on; the entry
point names the factory.
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


# group → name → where it comes from, of plug-ins that this process has been given as files
ADOPTED: dict[str, dict[str, str]] = {group: {} for group in PACKAGES}
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
    return dict(sorted({**origins, **ADOPTED[group]}.items()))


def names(group: str) -> list[str]:
    """The names in a group, in alphabetical order; nothing is imported."""
    return list(sources(group))


@lru_cache
def find(group: str, name: str) -> Plugin:
    """Import one plug-in. Raises BadInput where the name is unknown or the file cannot be used."""
    known = sources(group)
    if name not in known:
        raise BadInput(f"unknown {SINGULAR[group]} {name!r}; {nearest(name, known)}")
    module, _, attribute = known[name].partition(":")
    try:
        return read_plugin(importlib.import_module(module), group, attribute or name, name)
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        raise BadInput(
            f"{SINGULAR[group]} {name!r} ({module}) cannot be used: {type(error).__name__}: {error}"
        ) from error


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
    say: a list of plug-ins need not wait for torch. Its factory imports the file when it is called.
    """
    try:
        file = own_file(group, name)
        module = outline(file, name, constants(group))
        described = read_plugin(module, group, name, name)
    except BadInput:
        raise
    except Exception:  # noqa: BLE001 -- whatever it is, the import says what is wrong, if anything
        return find(group, name)
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
    facts = find("attacks", name).facts
    assert isinstance(facts, AttackFacts)
    return facts


def defense_facts(name: str) -> DefenseFacts:
    """The facts of a defense."""
    facts = find("defenses", name).facts
    assert isinstance(facts, DefenseFacts)
    return facts


def kinds(group: str, name: str) -> tuple[Kind, ...]:
    """The kinds of data that a plug-in is for; empty: any."""
    facts = find(group, name).facts
    return () if isinstance(facts, SearchSpaceFacts) else facts.kinds


@lru_cache
def digest(group: str, name: str) -> str:
    """12 hexadecimal digits that change with the code of a plug-in's file, another package's too.

    Comments, docstrings and layout do not count. Empty where the source is not there.
    """
    module = inspect.getmodule(find(group, name).factory)
    try:
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
    known = sources("defenses")
    needed = {need for name in stages if name in known for need in defense_facts(name).needs}
    return [words for need, words in NEEDS.items() if need in needed]


def knows(stages: Iterable[str]) -> str:
    """What a chain of attacks knows, in words: the most that any of its stages does; empty without
    stages.
    """
    known, levels = sources("attacks"), list(KNOWS)
    reached = [levels.index(attack_facts(name).knows) for name in stages if name in known]
    return KNOWS[levels[max(reached)]] if reached else ""


def aims(stages: Iterable[str]) -> bool:
    """Whether a chain of attacks says what a success is; stages that are not there any more say
    nothing.
    """
    known = sources("attacks")
    return any(name in known and attack_facts(name).trigger for name in stages)


def owner(name: str) -> str | None:
    """The group that holds a name, or None."""
    return next((group for group in PACKAGES if name in sources(group)), None)


def adopt(path: str, group: str) -> str:
    """Make a file outside the package a plug-in of this process, as if it stood in the group's
    folder; its name. Raises BadInput where it cannot be one.
    """
    file = Path(path)
    if file.stem in names(group):
        module, _, _ = sources(group)[file.stem].partition(":")
        known = importlib.import_module(module).__file__
        if known is not None and Path(known).resolve() == file.resolve():
            return file.stem
        raise BadInput(
            f"{SINGULAR[group]} {path}: there is a {file.stem!r} already ({module});"
            " give the file and its function another name"
        )
    plugin = load_file(path, group)
    ADOPTED[group][plugin.name] = f"{plugin.factory.__module__}:{plugin.name}"
    for cache in (sources, find, digest):
        cache.cache_clear()
    return plugin.name


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
