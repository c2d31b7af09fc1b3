"""A plug-in's file read without its imports says what its import says, and asks for the import
where it cannot tell.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from backstop.platform import plugins
from backstop.platform.declarations.facts import constants
from backstop.platform.declarations.outline import Unclear, outline
from backstop.platform.params import BadInput
from tests.conftest import forget

ALL = [(group, name) for group in plugins.PACKAGES for name in plugins.names(group)]


@pytest.mark.parametrize(("group", "name"), ALL)
def test_both_readings_of_every_plugin_agree(group: str, name: str) -> None:
    outline(plugins.own_file(group, name), name, constants(group))  # no import is needed
    imported = plugins.find(group, name)
    described = plugins.describe(group, name)
    assert described.factory is not imported.factory
    assert described._replace(factory=imported.factory) == imported


def test_a_described_plugin_is_imported_when_it_is_built(toys: Path) -> None:
    described = plugins.describe("attacks", "stamp")
    assert "toybox.attacks.stamp" not in sys.modules
    assert described.factory(target=2, size=5) == "stamp 2 5"


def written(folder: Path, source: str) -> Path:
    """A plug-in's file named ``mine``."""
    file = folder / "mine.py"
    file.write_text(source)
    return file


def test_what_the_signature_rests_on_is_kept_and_nothing_else(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '"""Mine."""\n'
        "from typing import Annotated\n"
        "import torch\n"
        "from backstop.platform.params import Range\n"
        "TOP, HALF = 8, 4\n"
        "SIZES = {}\n"
        "SIZES['large'] = TOP * 10\n"
        "UNUSED = torch.zeros(3)\n"
        "Size = Annotated[int, Range(1, SIZES['large']), 'its size']\n"
        "VERSION = 2\n"
        "def mine(*, size: Size = HALF, deep: bool = False) -> torch.Tensor:\n"
        "    return UNUSED * size\n",
    )
    module = outline(file, "mine", ["VERSION"])
    assert module.VERSION == 2
    assert module.mine() is None
    assert {"torch", "UNUSED"}.isdisjoint(vars(module))
    parameters = plugins.read_plugin(module, "defenses", "mine", "mine").parameters
    assert (parameters["size"].default, parameters["size"].allowed) == (4, "an integer in [1, 80]")


@pytest.mark.parametrize(
    "head",
    [
        "import unheard_of",
        "from .sibling import VERSION",
        "from backstop.platform.robust import VERSION",
        "if 1 < 2:\n    VERSION = 1",
        "for VERSION in (1, 2):\n    pass",
        "print('made')",
        "def VERSION(): ...",
        "import torch as VERSION",
        "from backstop.platform.robust import nowhere_to_be_found",
        "from backstop.platform.nowhere import VERSION",
        "import backstop.platform.nowhere",
    ],
)
def test_what_only_the_import_can_tell_is_left_to_it(tmp_path: Path, head: str) -> None:
    file = written(tmp_path, f"{head}\ndef mine() -> int:\n    return 3\n")
    with pytest.raises(Unclear):
        outline(file, "mine", ["VERSION"])


@pytest.mark.parametrize(
    "definition",
    ["mine = lambda: 3", "@staticmethod\ndef mine(): ...", "def other(): ...", "class mine: ..."],
)
def test_only_a_plain_function_has_a_signature_to_read(tmp_path: Path, definition: str) -> None:
    with pytest.raises(Unclear):
        outline(written(tmp_path, definition), "mine", [])


def test_a_plugin_that_has_to_be_imported_is(toys: Path) -> None:
    (toys / "models" / "made.py").write_text(
        '"""Made."""\nVERSION = 1\nif len("abc") == 3:\n    VERSION = 3\n'
        "def made() -> str:\n    return 'made'\n"
    )
    forget()
    assert plugins.describe("models", "made").version == 3
    assert "toybox.models.made" in sys.modules


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("from backstop.platform.robust import gone", "ImportError: cannot import name 'gone'"),
        ("from backstop.platform import gone", "ImportError: cannot import name 'gone'"),
        ("import backstop.platform.gone", "ModuleNotFoundError: No module named"),
        ("from backstop.platform.gone import it", "ModuleNotFoundError: No module named"),
    ],
)
def test_a_name_of_ours_that_is_gone_is_said(toys: Path, line: str, reason: str) -> None:
    (toys / "models" / "made.py").write_text(f'"""Made."""\n{line}\ndef made() -> str: ...\n')
    forget()
    with pytest.raises(BadInput, match=f"^model 'made' .* cannot be used: {reason}"):
        plugins.describe("models", "made")


def test_another_packages_plugin_is_imported(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("foreign", "toybox.attacks.scale:scale", "backstop.attacks")
    points = {"backstop.attacks": [point]}
    monkeypatch.setattr(plugins, "entry_points", lambda group: points.get(group, []))
    forget()
    assert plugins.describe("attacks", "foreign") is plugins.find("attacks", "foreign")
    assert plugins.attack_facts("foreign").strength == "factor"


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "--version",
        "list",
        "list attacks",
        "list --json",
        "show badnets",
        "show table --json",
        "show quickstart",
        "run --help",
        "sweep --help",
    ],
)
def test_a_command_that_computes_nothing_imports_nothing_heavy(line: str, tmp_path: Path) -> None:
    assert heavy_imports(line, tmp_path) == set()


def test_a_dry_run_imports_no_torch(tmp_path: Path) -> None:
    assert heavy_imports("sweep quickstart --dry-run --json", tmp_path) == {"numpy"}


def heavy_imports(line: str, folder: Path) -> set[str]:
    """The heavy modules that a command line imports, which ends well and prints something."""
    script = (
        "import sys\n"
        "from backstop.platform import cli\n"
        "try:\n"
        "    code = cli.main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "heavy = {'torch', 'numpy', 'ray', 'mlflow', 'pandas', 'optuna'} & set(sys.modules)\n"
        "print('imported', *heavy, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *line.split()],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    first, *modules = done.stderr.splitlines()[-1].split()
    assert first == "imported"
    return set(modules)
