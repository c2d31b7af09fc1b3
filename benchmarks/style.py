"""How the code reads, in figures: ``python benchmarks/style.py [FOLDER ...] [--names]``.

Without folders: ``platform/``, and what is installed of the packages in ``PEERS``. One column for
each folder. Tests, ``__init__.py`` and files without code are left out.

- *tokens per code line*: of the lines that hold code; comments and docstrings are neither.
- *tokens of a function*: of its body with what is nested in it; signatures are schemas here.
- *complexity*: McCabe's, counted as ruff's C901 counts it.
- *names with two meanings*: a public function, class or constant that two files define at their top
  level. The folders of plug-ins (``datasets``, ``models``) are left out, where constants are facts
  that each file must state; so are ``kernels``, two forms of the same functions, and ``notebook``,
  the front door, whose ``run`` is the one behind it.
- *vague words*: names that are exactly one of ``VAGUE``, each time they are written.

``--names`` lists the functions above the complexity limit, the names with two meanings and the
count of each vague word, for the first folder.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import io
import statistics
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("starlette", "optuna", "byzfl")
COLUMNS = 100
COMPLEXITY = 12
VAGUE = frozenset({"found", "bad", "number", "until", "place", "wanted"})
OWN_NAMES = ("datasets", "models", "kernels", "notebook")
NO_CODE = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


class File(NamedTuple):
    """A source file, read once."""

    path: Path  # from the folder that is measured
    lines: list[str]
    tree: ast.Module
    tokens: list[tokenize.TokenInfo]  # code only: no comments, no docstrings


class Figure(NamedTuple):
    """One line of the table."""

    name: str
    value: Callable[[list[File]], float]
    digits: int = 0


# -- reading


def docstring_lines(tree: ast.Module) -> set[int]:
    """The lines of all docstrings."""
    lines: set[int] = set()
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            lines.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def read(path: Path, folder: Path) -> File:
    """The file with its lines, syntax tree and tokens."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    prose = docstring_lines(tree)
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in NO_CODE and token.start[0] not in prose
    ]
    return File(path.relative_to(folder), source.splitlines(), tree, tokens)


def read_folder(folder: Path) -> list[File]:
    """The folder's source files that hold code."""
    files = []
    for path in sorted(folder.rglob("*.py")):
        tests = path.name.startswith("test_") or "tests" in path.relative_to(folder).parts
        if path.name != "__init__.py" and not tests:
            file = read(path, folder)
            if file.tokens:
                files.append(file)
    return files


def functions(file: File) -> Iterator[Function]:
    """The functions and methods of a file, nested ones too."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


# -- figures


def median_lines(files: list[File]) -> float:
    """Lines of the median file."""
    return statistics.median(len(file.lines) for file in files)


def function_tokens(files: list[File]) -> list[int]:
    """The tokens of each function's body."""
    sizes = []
    for file in files:
        on_line = Counter(token.start[0] for token in file.tokens)
        for function in functions(file):
            first, last = function.body[0], function.body[-1]
            lines = range(first.lineno, (last.end_lineno or last.lineno) + 1)
            sizes.append(sum(on_line[line] for line in lines))
    return sizes


def median_function(files: list[File]) -> float:
    """Tokens of the median function."""
    return statistics.median(function_tokens(files))


def tokens_per_line(files: list[File]) -> float:
    """Tokens of the average code line."""
    lines = sum(len({token.start[0] for token in file.tokens}) for file in files)
    return sum(len(file.tokens) for file in files) / lines


def long_lines(files: list[File]) -> float:
    """Lines that are too long, in percent of all lines."""
    lengths = [len(line) for file in files for line in file.lines]
    return 100 * sum(length > COLUMNS for length in lengths) / len(lengths)


def per_thousand(files: list[File], *kinds: type[ast.AST]) -> float:
    """How often these kinds of expression are written, per 1,000 lines."""
    nodes = (node for file in files for node in ast.walk(file.tree))
    lines = sum(len(file.lines) for file in files)
    return 1000 * sum(isinstance(node, kinds) for node in nodes) / lines


def ternaries(files: list[File]) -> float:
    """Ternaries per 1,000 lines."""
    return per_thousand(files, ast.IfExp)


def comprehensions(files: list[File]) -> float:
    """Comprehensions and generator expressions per 1,000 lines."""
    return per_thousand(files, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def branches(node: ast.AST) -> int:
    """The branches that one node adds."""
    if isinstance(node, ast.Try):
        return len(node.handlers) + bool(node.orelse)
    if isinstance(node, ast.For | ast.AsyncFor | ast.While):
        return 1 + bool(node.orelse)
    if isinstance(node, ast.Match):
        return sum(not _catches_all(case) for case in node.cases)
    return int(isinstance(node, ast.If | ast.FunctionDef | ast.AsyncFunctionDef))


def _catches_all(case: ast.match_case) -> bool:
    """Whether this is the `case _` at the end."""
    pattern = case.pattern
    return case.guard is None and isinstance(pattern, ast.MatchAs) and pattern.pattern is None


def complexity(function: Function) -> int:
    """McCabe's complexity: one more than the branches."""
    return sum(branches(node) for node in ast.walk(function))


def too_complex(files: list[File]) -> list[str]:
    """The functions above the limit, the worst first."""
    measured = [
        (complexity(function), f"{file.path}: {function.name}")
        for file in files
        for function in functions(file)
    ]
    return [f"{size} {name}" for size, name in sorted(measured, reverse=True) if size > COMPLEXITY]


def defined(tree: ast.Module) -> Iterator[str]:
    """The public names that a module defines at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def two_meanings(files: list[File]) -> dict[str, list[str]]:
    """The public names that more than one file defines, with the files."""
    homes: dict[str, list[str]] = defaultdict(list)
    for file in files:
        if not file.path.as_posix().startswith(OWN_NAMES):
            for name in set(defined(file.tree)):
                homes[name].append(file.path.as_posix())
    return {name: paths for name, paths in sorted(homes.items()) if len(paths) > 1}


def vague(files: list[File]) -> Counter[str]:
    """How often each vague word stands for something."""
    return Counter(token.string for file in files for token in file.tokens if token.string in VAGUE)


FIGURES = (
    Figure("files", len),
    Figure("lines of the median file", median_lines),
    Figure("tokens of the median function", median_function),
    Figure("tokens per code line", tokens_per_line, 1),
    Figure(f"lines over {COLUMNS} columns, %", long_lines, 1),
    Figure("ternaries per 1,000 lines", ternaries, 1),
    Figure("comprehensions per 1,000 lines", comprehensions, 1),
    Figure(f"functions of complexity over {COMPLEXITY}", lambda files: len(too_complex(files))),
    Figure("public names with two meanings", lambda files: len(two_meanings(files))),
    Figure("vague words as names", lambda files: vague(files).total()),
)


# -- printing


def peers() -> dict[str, Path]:
    """The installed packages to compare with."""
    folders = {}
    for name in PEERS:
        package = importlib.util.find_spec(name)
        if package is not None and package.submodule_search_locations:
            folders[name] = Path(package.submodule_search_locations[0])
    return folders


def print_table(columns: dict[str, list[File]]) -> None:
    """One line for each figure, one column for each folder."""
    width = max(len(figure.name) for figure in FIGURES)
    widths = {name: max(len(name), 8) for name in columns}
    print(" " * width, *(f"{name:>{widths[name]}}" for name in columns), sep="  ")
    for figure in FIGURES:
        cells = [
            f"{figure.value(files):>{widths[name]},.{figure.digits}f}"
            for name, files in columns.items()
        ]
        print(f"{figure.name:<{width}}", *cells, sep="  ")


def print_names(files: list[File]) -> None:
    """What is behind the last three figures."""
    print(f"\nFunctions of complexity over {COMPLEXITY}:")
    for line in too_complex(files):
        print(f"  {line}")
    print("\nPublic names with two meanings:")
    for name, paths in two_meanings(files).items():
        print(f"  {name}: {', '.join(paths)}")
    print("\nVague words as names:")
    for word, count in vague(files).most_common():
        print(f"  {word}: {count}")


def main() -> None:
    """Measure the folders named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folders", nargs="*", type=Path, help="default: platform/ and its peers")
    parser.add_argument("--names", action="store_true", help="say what is behind the figures")
    arguments = parser.parse_args()
    folders = {folder.as_posix(): folder for folder in arguments.folders}
    if not folders:
        folders = {"platform": ROOT / "platform", **peers()}
    for name, folder in folders.items():
        if not folder.is_dir():
            parser.error(f"{name} is no folder")
    columns = {name: read_folder(folder) for name, folder in folders.items()}
    print_table(columns)
    if arguments.names:
        print_names(next(iter(columns.values())))


if __name__ == "__main__":
    main()
