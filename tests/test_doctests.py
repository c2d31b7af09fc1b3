"""The examples in docstrings run, in every module that imports without the heavy libraries."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import backstop

# rooms that need ray, mlflow, optuna, pandas, or an extra
HEAVY = ("commands", "results.report", "results.tables", "stacks", "sweeps", "workers")
FLAGS = doctest.NORMALIZE_WHITESPACE


def rooms() -> list[str]:
    (folder,) = importlib.import_module("backstop.platform").__path__
    files = Path(folder).glob("*/**/*.py")
    return sorted({".".join(file.parent.relative_to(folder).parts) for file in files})


def modules() -> list[str]:
    packages = (
        "backstop.platform",
        *(f"backstop.platform.{room}" for room in rooms() if room not in HEAVY),
        "backstop.attacks",
        "backstop.defenses",
        "backstop.search_spaces",
    )
    found = ["backstop"]
    for package in packages:
        found += [
            info.name
            for info in pkgutil.iter_modules(
                importlib.import_module(package).__path__, f"{package}."
            )
            if not info.ispkg
        ]
    return found


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert not failed


@pytest.mark.parametrize(
    "name", [name for name in modules() if name.split(".")[1:2] in (["attacks"], ["defenses"])]
)
def test_every_data_sheet_has_an_example(name: str) -> None:
    assert doctest.DocTestFinder().find(importlib.import_module(name))[0].examples


def test_the_package_has_modules() -> None:
    assert backstop.__name__ in modules() and len(modules()) > 10
