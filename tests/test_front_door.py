"""``import backstop``: quick, lazy, and with the same names for Python as for a type checker."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import backstop

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(backstop.__file__)
OFFERED = sorted(name for name in dir(backstop) if not name.startswith("_"))


def python(script: str) -> str:
    """What a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_is_quick_and_brings_nothing_along() -> None:
    printed = python(
        "import importlib, sys, time, typing\n"
        "before, start = set(sys.modules), time.perf_counter()\n"
        "import backstop\n"
        "print(time.perf_counter() - start, *sorted(set(sys.modules) - before))\n"
    )
    seconds, *imported = printed.split()
    assert imported == ["backstop"]
    assert float(seconds) < 0.1


def test_a_type_checker_sees_the_names_that_python_sees() -> None:
    block = next(
        node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)
    ).body
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {
        name: f"backstop.platform.{home}.{name}" for name, home in backstop._HOMES.items()
    }


@pytest.mark.parametrize("name", OFFERED)
def test_every_name_is_there(name: str) -> None:
    home = import_module(f"backstop.platform.{backstop._HOMES[name]}")
    assert getattr(backstop, name) is getattr(home, name)
    assert getattr(backstop, name).__doc__


def test_a_name_that_there_is_not_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'backstop' has no attribute 'swep'"):
        backstop.swep  # type: ignore[attr-defined]  # noqa: B018 -- that it raises is the test


def test_submodules_are_imported_as_before() -> None:
    assert python("from backstop.platform import params; print(params.BadInput.__name__)")
    assert python("import backstop.attacks.badnets as attack; print(attack.VERSION)")
