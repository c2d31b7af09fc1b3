"""The rules of docs/architecture.md, read from the source."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINKS = ("platform", "attacks", "defenses", "search_spaces")
PLUGIN_FOLDERS = ("attacks", "defenses", "search_spaces", "platform/datasets", "platform/models")
SOURCES = sorted(file for folder in LINKS for file in (ROOT / folder).rglob("*.py"))
PLATFORM = sorted(
    file
    for file in (ROOT / "platform").rglob("*.py")
    if file.parent.name not in {"datasets", "models"}
)
PLUGINS = sorted(
    file
    for folder in PLUGIN_FOLDERS
    for file in (ROOT / folder).glob("*.py")
    if not file.name.startswith("_")
)
EVERYTHING = SOURCES + sorted(
    file
    for folder in ("tests", "benchmarks", "src/backstop")
    for file in (ROOT / folder).glob("**/*.py")
    if ".peers" not in file.parts  # other projects, installed by `make bench`
)

PART = "backstop.platform."
CONTRACT = {PART + "contract", PART + "params", PART + "robust"}
MAY_IMPORT = {  # besides the standard library; a search space may start from another's base
    "attacks": CONTRACT
    | {
        PART + "threats",
        PART + "optimizers",
        "torch",
        "numpy",
        "scipy",
    },
    "defenses": CONTRACT
    | {
        PART + "remedies",
        PART + "optimizers",
        "torch",
        "numpy",
        "scipy",
        "sklearn",
    },
    "search_spaces": {
        PART + "contract",
        PART + "params",
        PART + "plugins",
        PART + "specs",
        "backstop.search_spaces",
    },
    "platform/datasets": CONTRACT
    | {
        PART + "disk",
        PART + "seeds",
        PART + "intake",
        PART + "extras",
        "torch",
        "torchvision",
        "numpy",
        "pandas",
        "PIL",
        "tokenizers",
    },
    "platform/models": CONTRACT
    | {
        PART + "extras",
        PART + "vault",
        PART + "training.constants",
        PART + "training.dropout",
        PART + "training.pooling",
        PART + "training.recurrence",
        "torch",
        "torchvision",
        "peft",
        "safetensors",
        "timm",
        "transformers",
    },
}
# seconds to import: only where they are used, so that listing plug-ins stays quick
LAZY = {
    "PIL",
    "pandas",
    "peft",
    "safetensors",
    "scipy",
    "sklearn",
    "timm",
    "tokenizers",
    "torchvision",
    "transformers",
}
ONLY_IN = {
    "ray": {
        "platform/sweeps/trials.py",
        "platform/workers/actors.py",
        "platform/workers/cluster.py",
        "platform/workers/connection.py",
        "platform/workers/fingerprints.py",
        "platform/workers/rays.py",
    },
    "flwr": {
        "platform/stacks/flower_classic.py",
        "platform/stacks/flower_mod.py",
        "platform/stacks/flower_strategy.py",
    },
    "datasets": {"platform/intake/hf.py"},
    "nvflare": {"platform/stacks/nvflare_aggregator.py"},
    "optuna": {
        "platform/sweeps/ranges.py",
        "platform/sweeps/samplers.py",
        "platform/sweeps/search.py",
    },
    "pyarrow": {"platform/storage.py"},
    "mlflow": {
        "platform/results/tracking/database.py",
        "platform/results/tracking/dataset_inputs.py",
        "platform/results/tracking/empty_tables.py",
        "platform/results/tracking/exhibits.py",
        "platform/results/tracking/experiments.py",
        "platform/results/tracking/log.py",
        "platform/results/tracking/models.py",
        "platform/results/tracking/runs.py",
        "platform/results/tracking/store.py",
        "platform/results/tracking/sweep_states.py",
        "platform/results/tracking/sweeps.py",
    },
}
FORBIDDEN_IN_PLUGINS = {
    "random",
    "time",
    "datetime",
    "secrets",
    "uuid",
    "subprocess",
    "socket",
    "threading",
    "multiprocessing",
}
GLOBAL_TORCH = {
    "torch.manual_seed",
    "torch.seed",
    "torch.initial_seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
}
SAFE_NUMPY = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox", "get_state"}
DRAWS = (
    "rand randn randint randperm normal bernoulli multinomial poisson rand_like randn_like "
    "randint_like"
)
TORCH_DRAWS = {f"torch.{draw}" for draw in DRAWS.split()}
METHOD_DRAWS = {
    "normal_",
    "uniform_",
    "random_",
    "bernoulli_",
    "exponential_",
    "cauchy_",
    "log_normal_",
    "geometric_",
    "multinomial",
    "bernoulli",
}


def name(file: Path) -> str:
    """The file as its place in the repository."""
    return file.relative_to(ROOT).as_posix()


@cache
def tree(file: Path) -> ast.Module:
    """The file's syntax tree, read once for all rules."""
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


@cache
def is_folder(module: str) -> bool:
    """Whether the module is a folder of ours, so that what is imported from it is a file."""
    return (ROOT / "src" / Path(*module.split("."))).is_dir()


def imports(node: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every imported module, anywhere in the file; ``from backstop.platform import x`` counts as
    backstop.platform.x.
    """
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from ((child, alias.name) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = "." * child.level + (child.module or "")
            for alias in child.names:
                yield child, f"{module}.{alias.name}" if is_folder(module) else module


def calls(module: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """Every call with its full dotted name, local names resolved through the file's imports;
    methods of values start with a dot.
    """
    known: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                known |= {alias.asname: alias.name} if alias.asname else {top: top}
        elif isinstance(node, ast.ImportFrom):
            known |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            words: list[str] = []
            head = node.func
            while isinstance(head, ast.Attribute):
                words.insert(0, head.attr)
                head = head.value
            if isinstance(head, ast.Name) and (head.id in known or not words):
                yield node, ".".join([known.get(head.id, head.id), *words])
            elif words:
                yield node, "." + words[-1]


@cache
def imported(file: Path) -> list[tuple[int, str]]:
    """Every module that a file imports, with its line."""
    return [(node.lineno, module) for node, module in imports(tree(file))]


@cache
def every_call() -> list[tuple[Path, ast.Call, str]]:
    """Every call of the sources, with its file."""
    return [(file, node, called) for file in SOURCES for node, called in calls(tree(file))]


def tops(file: Path) -> set[str]:
    """The packages that a file imports from."""
    return {module.split(".")[0] for _, module in imported(file)}


def public(module: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """The public functions and classes of a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [
        node for node in module.body if isinstance(node, kinds) and not node.name.startswith("_")
    ]


def of_folder(folder: str) -> list[Path]:
    """The plug-ins of a folder."""
    return [file for file in PLUGINS if name(file.parent) == folder]


# -- layout


@pytest.mark.parametrize("folder", [*LINKS, *PLUGIN_FOLDERS])
def test_no_init_file(folder: str) -> None:
    # platform/__init__.py would hide the standard library's platform from everything started in the
    # repository's root.
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("folder", LINKS)
def test_the_links_are_links(folder: str) -> None:
    link = ROOT / "src" / "backstop" / folder
    assert link.is_symlink(), f"{link} is no symbolic link: check out with git's core.symlinks=true"
    assert link.readlink() == Path(f"../../{folder}")


def test_the_standard_library_keeps_its_platform() -> None:
    script = "import platform, sys; sys.exit(not platform.python_version())"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    assert [name(file) for file in EVERYTHING if file.stem in sys.stdlib_module_names] == []


def test_no_benchmark_hides_a_package() -> None:
    """A script's folder comes first on its path: numba once found a benchmark for ``coverage``."""
    packages = set(packages_distributions())
    assert len(packages) > 50
    assert packages.isdisjoint(file.stem for file in (ROOT / "benchmarks").glob("*.py"))


def test_no_module_for_leftovers() -> None:
    leftovers = {
        "utils",
        "util",
        "helpers",
        "helper",
        "common",
        "base",
        "manager",
        "misc",
    }
    assert [name(file) for file in EVERYTHING if file.stem in leftovers] == []


# -- imports


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_what_a_plugin_imports(folder: str) -> None:
    allowed = MAY_IMPORT[folder]
    for file in of_folder(folder):
        for line, module in imported(file):
            top = module.split(".")[0]
            legal = top in sys.stdlib_module_names or any(
                module == one or module.startswith(f"{one}.") for one in allowed
            )
            where = f"{name(file)}:{line} imports {module}"
            assert legal, f"{where}; {folder} may import {', '.join(sorted(allowed))}"
            assert top not in FORBIDDEN_IN_PLUGINS, where


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_slow_libraries_are_imported_where_they_are_used(folder: str) -> None:
    for file in of_folder(folder):
        body = ast.Module(
            [node for node in tree(file).body if isinstance(node, (ast.Import, ast.ImportFrom))], []
        )
        assert not {module.split(".")[0] for _, module in imports(body)} & LAZY, name(file)


@pytest.mark.parametrize("library", ONLY_IN)
def test_each_engine_has_its_file(library: str) -> None:
    files = ONLY_IN[library]
    elsewhere = [
        name(file) for file in SOURCES if library in tops(file) and name(file) not in files
    ]
    assert elsewhere == [], f"only {' and '.join(sorted(files))} may import {library}"


def test_nothing_is_imported_under_a_second_name() -> None:
    for file in EVERYTHING:
        assert not tops(file) & {"attacks", "defenses", "search_spaces"}, name(file)
        second = [module for _, module in imported(file) if module.startswith((".", "platform."))]
        assert second == [], name(file)


def test_the_platform_knows_plugins_by_name_only() -> None:
    homes = (
        "backstop.attacks",
        "backstop.defenses",
        "backstop.search_spaces",
        PART + "datasets",
        PART + "models",
    )
    for file in PLATFORM:
        known = [module for _, module in imported(file) if module.startswith(homes)]
        assert known == [], name(file)


def test_an_experiment_needs_no_sweep() -> None:
    script = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'optuna', 'pandas', 'matplotlib', 'rich'): "
        "sys.modules[name] = None\n"
        "import backstop.platform.experiment\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# -- layers


def floors(page: str) -> list[list[str]]:
    """The rooms of each floor, the lowest first, read from the picture under "Layers"."""
    picture = page.partition("## Layers")[2].split("```")[1].strip()
    return [line.split("  ")[0].split() for line in reversed(picture.splitlines())]


PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
HOUSE = floors(PAGE)
FLOOR = {room: floor for floor, rooms in enumerate(HOUSE) for room in rooms}


def room(module: str) -> str:
    """The room of a module of ours: specs for backstop.platform.specs.part, results/tables for
    backstop.platform.results.tables.columns, as the picture names them.
    """
    outer, *inner = module.removeprefix("backstop.").removeprefix("platform.").split(".")
    within = "/".join([outer, *inner[:1]])
    return within if within in FLOOR else outer


def module_name(file: Path) -> str:
    """The name that a file of the package is imported by."""
    return "backstop." + name(file).removesuffix(".py").replace("/", ".")


def ours(file: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    modules = {module for _, module in imported(file) if module.startswith("backstop.")}
    return modules - {"backstop.__version__"}


def going_up(file: str, modules: set[str]) -> list[str]:
    """The modules that lie on the file's own floor or above, in another room than its own."""
    here = room(file)
    higher = []
    for module in sorted(modules):
        floor = FLOOR.get(room(module), len(HOUSE))  # what the picture lacks lies above it
        if room(module) != here and floor >= FLOOR[here]:
            higher.append(module)
    return higher


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a circle; empty where there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_room_stands_in_the_picture_once() -> None:
    drawn = [room for rooms in HOUSE for room in rooms]
    assert sorted(drawn) == sorted({room(module_name(file)) for file in SOURCES})


def test_every_file_is_explained() -> None:
    rooms = PAGE.partition("## Rooms")[2].partition("\n## ")[0]
    for file in PLATFORM:
        if file.parent.name == "platform":
            assert f"`{file.name}`" in rooms, (
                f"docs/architecture.md does not say what {file.name} holds"
            )
        elif file.name != "__init__.py":
            folder = file.parent.relative_to(ROOT / "platform").as_posix()
            here = rooms.partition(f"- `{folder}/`")[2].partition("\n- ")[0]
            assert f"`{file.stem}`" in here, f"docs/architecture.md does not say what {file} holds"


def test_every_import_goes_down() -> None:
    for file in SOURCES:
        higher = going_up(module_name(file), ours(file))
        assert not higher, (
            f"docs/architecture.md puts {', '.join(higher)} no lower than {name(file)}"
        )


def test_no_import_circle() -> None:
    assert not circle({module_name(file): ours(file) for file in SOURCES})


def test_the_layers_bite() -> None:
    specs, rounds = f"{PART}specs.spec", f"{PART}rounds.starts"
    assert going_up(specs, {rounds, f"{PART}params", f"{PART}specs.part"}) == [rounds]
    assert going_up(rounds, {f"{PART}workers.actors"}) == [f"{PART}workers.actors"]
    assert circle({specs: {rounds}, rounds: {specs}})


def test_the_layers_bite_between_the_rooms_of_results() -> None:
    figures, tracking, board, tables, page = (
        f"{PART}results.{module}"
        for module in (
            "figures.cells",
            "tracking.runs",
            "leaderboard.ranking",
            "tables.columns",
            "report.page",
        )
    )
    upward = {figures: tracking, tracking: board, board: tables, tables: page}
    for lower, upper in upward.items():
        assert going_up(lower, {upper}) == [upper]
        assert going_up(upper, {lower}) == []
    assert going_up(tables, {f"{PART}results.tables.notes"}) == []
    assert room(f"{PART}results.stray") not in FLOOR


# -- calls


def test_no_global_generator_and_no_cdist() -> None:
    for file, node, called in every_call():
        where = f"{name(file)}:{node.lineno} calls {called}"
        assert called not in GLOBAL_TORCH, where
        assert not called.startswith("random.") or called == "random.getstate", where
        assert not called.endswith(".cdist"), where
        if called.startswith("numpy.random."):
            assert called.split(".")[2] in SAFE_NUMPY, where


def test_every_draw_names_its_generator() -> None:
    for file, node, called in every_call():
        if called in TORCH_DRAWS or (called.startswith(".") and called[1:] in METHOD_DRAWS):
            named = any(keyword.arg == "generator" for keyword in node.keywords)
            assert named, f"{name(file)}:{node.lineno} calls {called} without generator="


# -- plug-in files


def test_a_plugin_file_has_one_public_function_its_namesake() -> None:
    for file in PLUGINS:
        assert [node.name for node in public(tree(file))] == [file.stem], name(file)


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_no_inheritance_in_plugins(folder: str) -> None:
    allowed = (
        {"nn.Module", "torch.autograd.Function", "NamedTuple"}
        if folder == "platform/models"
        else {"NamedTuple"}
    )
    for file in of_folder(folder):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ClassDef):
                assert {ast.unparse(base) for base in node.bases} <= allowed, name(file)


def test_no_catch_all_parameters_in_plugins() -> None:
    for file in PLUGINS:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef):
                assert node.args.kwarg is None, (
                    f"{name(file)}:{node.lineno} takes **{node.args.kwarg.arg}"
                )


def test_examples_are_given_the_views_of_the_contract() -> None:
    own = [name(file) for file in PLUGINS if "SimpleNamespace" in file.read_text(encoding="utf-8")]
    assert own == [], "see platform/examples.py"


def test_everything_public_is_documented() -> None:
    for file in SOURCES:
        module = tree(file)
        assert ast.get_docstring(module), f"{name(file)} has no docstring"
        for node in public(module):
            where = f"{name(file)}: {node.name}"
            assert ast.get_docstring(node), f"{where} has no docstring"
            if isinstance(node, ast.ClassDef):
                for member in public(ast.Module(node.body, [])):
                    assert ast.get_docstring(member), f"{where}.{member.name} has no docstring"


# -- the rules bite


def test_the_readers_of_the_source_see_what_they_look_for() -> None:
    bad = ast.parse(
        "import torch as t, numpy as np\nfrom numpy import random as r\nfrom backstop.platform "
        "import experiment\n"
        "t.manual_seed(0); np.random.rand(3); r.choice([1]); t.randperm(4); x.normal_(); "
        "t.cdist(a, b)\n"
    )
    assert {module for _, module in imports(bad)} == {
        "torch",
        "numpy",
        "backstop.platform.experiment",
    }
    found = {called for _, called in calls(bad)}
    assert found == {
        "torch.manual_seed",
        "numpy.random.rand",
        "numpy.random.choice",
        "torch.randperm",
        ".normal_",
        "torch.cdist",
    }
    assert len(PLUGINS) > 10
    assert len(PLATFORM) > 5
