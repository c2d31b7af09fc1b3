"""Whether what a file imports from Backstop is there, told from the text of our modules alone."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

# Any other binding is not seen here: whether such a name is there, only the import can tell.
DEFINED = re.compile(
    r"^(?:async def|def|class) (\w+)"  # def krum(
    r"|^(\w+)(?:: .+)? = "  # LIMIT: int = 3
    r"|^(?:from \S+ )?import .*?(\w+)$"  # from a import b as name
    r"|^    (?:\w+ as )?(\w+),$",  # a line of an import in parentheses
    re.MULTILINE,
)


def finds_all(statement: ast.Import | ast.ImportFrom, package: Path) -> bool:
    """Whether each module of ours that is imported has a file in the package, and each name a
    definition there. Modules of others are taken for granted.
    """
    if isinstance(statement, ast.Import):
        modules = [alias.name for alias in statement.names]
        return all(_place(module, package) for module in modules if _is_ours(module))
    module = statement.module or ""
    return not _is_ours(module) or all(
        alias.name in defined(module, package) or _place(f"{module}.{alias.name}", package)
        for alias in statement.names
    )


@lru_cache
def defined(module: str, package: Path) -> frozenset[str]:
    """The names that a module of ours is seen to define; none where it has no file."""
    file = _place(module, package)
    if file is None or file.is_dir():
        return frozenset()
    groups_of_names = DEFINED.findall(file.read_text(encoding="utf-8"))
    return frozenset(name for groups in groups_of_names for name in groups if name)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "backstop"


def _place(module: str, package: Path) -> Path | None:
    """The file or the folder of a module of ours, if there is one."""
    place = package.joinpath(*module.split(".")[1:])
    file = place.with_name(f"{place.name}.py")
    if file.is_file():
        return file
    return place if place.is_dir() else None
