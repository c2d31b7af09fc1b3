"""Backstop inside Flower and NVFlare, each in an environment of its own: what comes out is what
Backstop makes of the same updates, and the page's app does what the page says.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "flower.md").read_text(encoding="utf-8")
RESULT = re.compile(r"^accuracy (\d\.\d\d), attack success (\d\.\d\d): (\S+)", re.MULTILINE)

needs_flower = [
    pytest.mark.slow,  # an environment from the index, and Rays
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(1800),
]


def environment(name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Python of an environment, or a skip that says why there is none."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    python, why = importlib.import_module("peers").environment(name)
    if python is None:
        pytest.skip(why)
    return Path(python)


def run_in(python: Path, script: Path, folder: Path) -> str:
    """What a script prints to stdout."""
    done = subprocess.run(
        [python, script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


def said(text: str, mark: str) -> list[Any]:
    """What a script says after a mark."""
    return [json.loads(line) for line in re.findall(rf"^{mark} (.*)$", text, re.MULTILINE)]


@pytest.mark.parametrize(
    ("library", "command"),
    [("flower", "pip install 'flwr>=1.42,<2'"), ("nvflare", "pip install 'nvflare>=2.9,<3'")],
)
def test_without_the_library_one_line_says_how_to_get_it(library: str, command: str) -> None:
    script = (
        "import sys\n"
        "sys.modules['flwr'] = sys.modules['nvflare'] = None\n"
        f"try: import backstop.{library}\n"
        "except ImportError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    (line,) = done.stdout.splitlines()
    assert command in line


@pytest.mark.slow  # an environment from the index
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "checks"), [("flower", 8), ("nvflare", 5)])
def test_the_librarys_own_classes(
    name: str, checks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment(name, monkeypatch)
    text = run_in(python, ROOT / "tests" / f"{name}_calls.py", tmp_path)
    assert said(text, "CHECKED") == [checks]


class TestSimulation:
    pytestmark = needs_flower

    def test_rounds_are_backstops(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        python = environment("flower", monkeypatch)
        text = run_in(python, ROOT / "tests" / "flower_rounds.py", tmp_path)
        [found] = said(text, "COMPARED")
        assert len(found) == 3
        assert not any(found.values())
        assert said(text, "CLASSIC") == [[10, True, 9]] * 2  # clients, all arrays equal, arrays

    def test_the_app_of_the_page(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        python = environment("flower", monkeypatch)
        app = PAGE.partition("<!-- app -->")[2].partition("```python\n")[2].partition("```")[0]
        assert len(app.splitlines()) <= 60
        script = tmp_path / "app.py"
        script.write_text(app, encoding="utf-8")
        printed = RESULT.findall(run_in(python, script, tmp_path))
        told = RESULT.findall(PAGE)
        assert [name for *_, name in printed] == [name for *_, name in told]
        for ours, theirs in zip(printed, told, strict=True):
            # Flower's node ids, and so the order of a sum, are others in each run
            assert [float(one) for one in ours[:2]] == pytest.approx(
                [float(one) for one in theirs[:2]], abs=0.1
            )
        success = {name: float(attack) for _, attack, name in printed}
        assert success.pop("FedAvg") > 0.8
        assert all(attack < 0.1 for attack in success.values())
