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

from backstop.platform.params import BadInput, Parameter, fill, nearest, schema

PACKAGES = {
    "attacks": "backstop.attacks",
    "defenses": "backstop.defenses",
    "datasets": "backstop.platform.datasets",
    "models": "backstop.platform.models",
    "search_spaces": "backstop.search_spaces",
}
SINGULAR = {group: group.removesuffix("s").replace("_", " ") for group in PACKAGES}


NEEDS = {  # what a defense may need to know, and how it is said
    "f": "assumed f",
    "root": "root set",
    "history": "history",
    "clients": "client change",
    "model": "model calls",
}
# what an adversary knows besides the global model
KNOWS = {"own": "own data", "defense": "the defense", "all": "honest updates"}
# what a defense is put on
TAKES = {"clients": "each client's own row", "rows": "several rows", "row": "rows, or a merged one"}
# what it leaves to the next stage
GIVES = {"rows": "the clients' rows", "mixtures": "mixtures of rows", "row": "one merged row"}


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Plugin(NamedTuple):
    """A plug-in as its file declares it. The facts are the module's constants in capitals."""

    name: str
    factory: Callable[..., Any]
    parameters: Mapping[str, Parameter]
    sheet: str  # the module's docstring, its data sheet
    facts: Mapping[str, Any]  # VERSION, KINDS, STRENGTH, KNOWS, NEEDS …

    @property
    def version(self) -> int:
        """Raised when the plug-in's numbers change; part of the id of every spec that uses it."""
        return int(self.facts.get("VERSION", 1))

    @property
    def summary(self) -> str:
        r"""The first paragraph of the data sheet, on one line.

        >>> Plugin("x", list, {}, "A thing that takes\ntwo lines.\n\nMore.", {}).summary
        'A thing that takes two lines.'
        """
        first, _, _ = self.sheet.strip().partition("\n\n")
        return " ".join(first.split())

    @property
    def source(self) -> str:
        """Where the method comes from: the data sheet's paragraph on it; empty where there is none."""
        return self.section("Source")

    def section(self, title: str) -> str:
        r"""A paragraph of the data sheet that begins with ``title:``, on one line; empty where
        there is none.

        >>> Plugin("x", list, {}, "A thing.\n\nChecked: by\nhand.", {}).section("Checked")
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
    found = {
        info.name: f"{PACKAGES[group]}.{info.name}:{info.name}"
        for info in pkgutil.iter_modules(package.__path__)
        if not info.name.startswith("_")
    }
    for point in entry_points(group=f"backstop.{group}"):
        if point.name in found:
            raise BadInput(
                f"{SINGULAR[group]} {point.name!r} is defined twice: {found[point.name]} and {point.value}"
            )
        found[point.name] = point.value
    return dict(sorted(found.items()))


def names(group: str) -> list[str]:
    """The names in a group, in alphabetical order; nothing is imported."""
    return list(sources(group))


@lru_cache
def find(group: str, name: str) -> Plugin:
    """Import one plug-in. Raises BadInput for an unknown name and for a file that cannot be used."""
    known = sources(group)
    if name not in known:
        raise BadInput(f"unknown {SINGULAR[group]} {name!r}; {nearest(name, known)}")
    module, _, attribute = known[name].partition(":")
    try:
        return read(importlib.import_module(module), attribute, name)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(
            f"{SINGULAR[group]} {name!r} ({module}) cannot be used: {type(error).__name__}: {error}"
        ) from error


def read(module: ModuleType, attribute: str, name: str) -> Plugin:
    """A plug-in from its module."""
    factory = getattr(module, attribute or name)
    facts = {key: value for key, value in vars(module).items() if key.isupper()}
    return Plugin(
        name,
        factory,
        schema(factory),
        inspect.getdoc(module) or inspect.getdoc(factory) or "",
        facts,
    )


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


def build(group: str, name: str, params: Mapping[str, Any]) -> Any:
    """Call a plug-in's factory with checked parameters."""
    plugin = find(group, name)
    return plugin.factory(**fill(plugin.parameters, params, f"{SINGULAR[group]} {name}"))


def needs(stages: Iterable[str]) -> list[str]:
    """What a chain of defenses needs to know, in the words of :data:`NEEDS`; stages that are not
    there any more say nothing.
    """
    known = sources("defenses")
    found = {
        need
        for name in stages
        if name in known
        for need in find("defenses", name).facts.get("NEEDS", ())
    }
    return [words for need, words in NEEDS.items() if need in found]


def knows(stages: Iterable[str]) -> str:
    """What a chain of attacks knows, in the words of :data:`KNOWS`: the most that any of its stages
    does; empty without stages.
    """
    known, levels = sources("attacks"), list(KNOWS)
    found = [
        levels.index(find("attacks", name).facts.get("KNOWS", "own"))
        for name in stages
        if name in known
    ]
    return KNOWS[levels[max(found)]] if found else ""


def owner(name: str) -> str | None:
    """The group that holds a name, or None."""
    return next((group for group in PACKAGES if name in sources(group)), None)


def load_file(path: str, group: str) -> Plugin:
    """A plug-in from a file outside the package (a search space given by path); its factory has the
    file's name.
    """
    from importlib.util import module_from_spec, spec_from_file_location

    file = Path(path)
    where = f"{SINGULAR[group]} {path}"
    spec = spec_from_file_location(f"backstop_{group}_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise BadInput(f"{where}: there is no such Python file")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BadInput:
        raise
    except BaseException as error:
        raise BadInput(f"{where} raised {type(error).__name__}: {error}") from error
    if not callable(getattr(module, file.stem, None)):
        raise BadInput(f"{where} has no function {file.stem}(), named as the file")
    return read(module, file.stem, file.stem)
