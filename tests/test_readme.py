"""The README does what it says: Python blocks run, marked console blocks run, commands and files
exist.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backstop.platform import plugins
from backstop.platform.contract import as_they_are
from backstop.platform.sweeps import plan
from backstop.platform.sweeps.twins import with_twins
from benchmarks import plugin_lists

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(
    r"(?P<mark><!-- run -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*backstop (?P<verb>\w+)", re.MULTILINE)

SHELL = "import backstop\n"  # a block that is a session of its own begins so
COUNT = re.compile(r"\b\d+ (?:attack stages|attacks|defenses|datasets|models|search spaces)\b")


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str
    marked: bool  # `<!-- run -->` stands before it


BLOCKS = [
    Block(fence["language"], fence["text"], bool(fence["mark"])) for fence in FENCE.finditer(README)
]
PYTHON = [
    block.text
    for block in BLOCKS
    if block.language == "python" and not block.text.startswith(SHELL)
]
NOTEBOOK = [block.text for block in BLOCKS if block.text.startswith(SHELL)]
MARKED = [block.text for block in BLOCKS if block.marked]


def backstop(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would, in a folder of its own."""
    script = "import sys; from backstop.platform.cli import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_blocks_run_in_order() -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    assert PYTHON
    for block, text in enumerate(PYTHON):
        # warnings are errors in every test
        exec(compile(text, f"README.md block {block}", "exec"), names)


@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(600)
def test_ten_lines_in_a_python_shell_are_a_sweep_a_dataframe_and_latex(tmp_path: Path) -> None:
    [text] = NOTEBOOK
    done = subprocess.run(
        [sys.executable, "-"],
        input=text,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(text.splitlines()) == 10
    # six specs and the attack's clean twin under each defense
    assert "9/9 done" in done.stderr
    assert re.search(r"^\d +<NA> +fedavg +\d\.", done.stdout, re.MULTILINE)
    assert "\n1 & " in done.stdout and "\\end{tabular}" in done.stdout


def test_the_example_defense_is_a_plugin(tmp_path: Path) -> None:
    file = tmp_path / "median_clip.py"
    file.write_text(PYTHON[0], encoding="utf-8")
    plugin = plugins.load_file(str(file), "defenses")
    assert plugin.summary == "Clip every update to the round's median norm."
    assert plugin.parameters["factor"].text
    assert plugin.parameters["factor"].range is not None


def test_marked_console_blocks_run(tmp_path: Path) -> None:
    assert MARKED
    assert all(text.startswith("$ backstop ") for text in MARKED)
    for text in MARKED:
        shown: list[str] = []
        printed = ""
        for line in text.splitlines():
            if line.startswith("$ "):
                done = backstop(shlex.split(line)[2:], tmp_path)
                assert done.returncode == 0, done.stderr
                printed += done.stdout
            elif line.strip() and line.strip() != "…":
                shown.append(line)
        for line in shown:
            assert line in printed, f"the README shows {line!r}, the command printed {printed}"


def test_every_command_of_the_readme_exists_and_every_command_is_in_it(tmp_path: Path) -> None:
    done = backstop(["--help"], tmp_path)
    assert done.returncode == 0
    known = set(re.findall(r"^ {4}(\w+)(?: |$)", done.stdout, re.MULTILINE))
    assert set(re.findall(r"^\| `backstop (\w+)", README, re.MULTILINE)) == known
    text = "\n".join(block.text for block in BLOCKS)
    assert {command["verb"] for command in COMMAND.finditer(text)} <= known


@pytest.mark.parametrize("name", plugin_lists.LISTS)
def test_lists_of_plugins_are_those_of_the_registry(name: str) -> None:
    page, listed = plugin_lists.LISTS[name]
    text = (ROOT / page).read_text(encoding="utf-8")
    assert plugin_lists.split(text, name)[1] == listed(), "run: python benchmarks/plugin_lists.py"


@pytest.mark.parametrize(
    "page", ["README.md", "CHANGELOG.md", "docs/attacks.md", "docs/defenses.md"]
)
def test_nobody_counts_plugins_by_hand(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, (where, _) in plugin_lists.LISTS.items():
        if where == page:
            head, _, tail = plugin_lists.split(text, name)
            text = head + tail
    assert not COUNT.findall(text)


def test_the_readme_says_how_many_runs_the_quickstart_has() -> None:
    specs = plan.load_space("quickstart")
    assert isinstance(specs, list)
    assert f"{len(with_twins(plan.distinct(specs)))} runs" in README


def test_the_page_on_defenses_has_them_all_with_what_they_need() -> None:
    page = (ROOT / "docs" / "defenses.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if re.match(r"\| \d+ \| `", line)
    ]
    assert {row[1].strip("`") for row in rows} == set(plugins.names("defenses"))
    assert {row[1]: row[3] for row in rows} == {
        row[1]: ", ".join(plugins.needs([row[1].strip("`")])) or "–" for row in rows
    }


def test_the_page_on_defenses_names_the_stages_that_may_follow_a_merged_row() -> None:
    page = (ROOT / "docs" / "defenses.md").read_text(encoding="utf-8")
    said = page.partition("clip or perturb it (")[2].partition(")")[0]
    maps = {
        name
        for name in plugins.names("defenses")
        if plugins.build("defenses", name, {}).apply is not as_they_are
    }
    allowed = {name for name in maps if plugins.defense_facts(name).takes == "row"} - {"fedavg"}
    assert set(re.findall(r"`(\w+)`", said)) == allowed


def test_the_page_on_attacks_has_them_all_with_what_they_know() -> None:
    page = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
    for name in plugins.names("attacks"):
        rows = [
            line
            for line in page.splitlines()
            if line.startswith("|")
            and re.search(rf"`[^`]*\b{name}\b[^`]*` \| {plugins.knows([name])} \|", line)
        ]
        assert rows, (
            f"docs/attacks.md has no row of {name} that says it knows {plugins.knows([name])}"
        )
