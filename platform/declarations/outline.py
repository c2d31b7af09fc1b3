"""A plug-in's file read without importing what it computes with.

Its data sheet, its facts and its signature need none of torch. They are what is left when all else
is cut out of the file: what remains is run, so that it means what it means in the whole file.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import backstop
from backstop.platform.declarations.imports import finds_all

# Modules of ours that import nothing heavy: names from them may stand in a signature.
TORCH_FREE = {
    "backstop.platform.params",
    "backstop.platform.remedies.parameters",
    "backstop.platform.threats.parameters",
}
PACKAGE = Path(backstop.__path__[0])
# What is there wherever Backstop runs; an import of anything else may fail, which only it can tell.
INSTALLED = {"backstop", "numpy", "torch"} | sys.stdlib_module_names


class Unclear(Exception):  # noqa: N818 -- it names what happened
    """The file holds something that only its import can tell the meaning of."""


def outline(
    file: Path,
    function: str,
    constants: Iterable[str],
) -> ModuleType:
    """The module of a file with nothing but its docstring, the given constants and a function that
    has the signature of the file's own and does nothing. Raises Unclear, or what running the rest
    raises, where the file has to be imported: not where a name of another package is missing, or
    a line that is cut out would fail.
    """
    tree = ast.parse(file.read_bytes(), str(file))
    binding = _binding(tree)
    signature = _signature(binding.get(function, []))
    kept = _needed([*constants, *_read(signature)], binding)
    body = [statement for statement in tree.body if statement in kept or _opens(statement)]
    return _run(file, [*body, signature])


def _run(file: Path, body: list[ast.stmt]) -> ModuleType:
    """The module of a file that holds nothing but these statements."""
    module = ModuleType(file.stem)
    module.__file__ = str(file)
    code = compile(ast.Module(body, []), str(file), "exec")
    exec(code, vars(module))  # noqa: S102 -- lines of our own plug-in
    return module


def _binding(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """The statements at the top of a file by the names that they give a meaning."""
    binding: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for name in _bound(statement):
            binding.setdefault(name, []).append(statement)
    return binding


def _opens(statement: ast.stmt) -> bool:
    """Whether it is a docstring, or tells Python how to read what follows."""
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "__future__"
    return isinstance(statement, ast.Expr)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top of a file gives a meaning."""
    match statement:
        case ast.Import() | ast.ImportFrom():
            yield from _imported(statement)
        case ast.Assign():
            for target in statement.targets:
                yield from _assigned(target)
        case ast.AnnAssign():
            yield from _assigned(statement.target)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield statement.name
        case ast.Expr(ast.Constant()) | ast.If(ast.Name("TYPE_CHECKING"), orelse=[]):
            pass
        case _:
            raise Unclear(f"line {statement.lineno}")


def _imported(statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    for alias in statement.names:
        module = alias.name
        if isinstance(statement, ast.ImportFrom):
            module = "." * statement.level + (statement.module or "")
        if _package(module) not in INSTALLED:
            raise Unclear(f"line {statement.lineno}: {module}")
        yield alias.asname or _package(alias.name)
    if not finds_all(statement, PACKAGE):
        raise Unclear(f"line {statement.lineno}: a name of ours that is not seen")


def _package(module: str) -> str:
    """The package that a module is of; empty for a relative import."""
    package, _, _ = module.partition(".")
    return package


def _assigned(target: ast.expr) -> Iterator[str]:
    """The names in what is assigned to: it, or a member of it, has another value afterwards."""
    return (item.id for item in ast.walk(target) if isinstance(item, ast.Name))


def _read(node: ast.AST) -> list[str]:
    """The names that are looked up in a piece of the file."""
    names = (item for item in ast.walk(node) if isinstance(item, ast.Name))
    return [item.id for item in names if isinstance(item.ctx, ast.Load)]


def _signature(definitions: list[ast.stmt]) -> ast.FunctionDef:
    """The function without its body and what it returns."""
    match definitions:
        case [ast.FunctionDef(decorator_list=[], body=[first, *_]) as function]:
            described = ast.get_docstring(function) is not None
            function.body = [first if described else ast.copy_location(ast.Pass(), first)]
            function.returns = None
            return function
    raise Unclear("no function of the plug-in's name, or one that is made in another way")


def _needed(names: Iterable[str], binding: Mapping[str, list[ast.stmt]]) -> set[ast.stmt]:
    """The statements that give these names their meaning, and those that they rest on in turn."""
    kept: set[ast.stmt] = set()
    open_names = list(names)
    while open_names:
        for statement in binding.get(open_names.pop(), ()):
            if statement not in kept:
                _check_light(statement)
                kept.add(statement)
                open_names += _read(statement)
    return kept


def _check_light(statement: ast.stmt) -> None:
    """Only assignments and imports of light modules are run."""
    match statement:
        case ast.Assign() | ast.AnnAssign():
            return
        case ast.ImportFrom(module=str(module)):
            if module in TORCH_FREE or _package(module) in sys.stdlib_module_names:
                return
    raise Unclear(f"line {statement.lineno}")
