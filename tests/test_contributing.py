"""The diffs of CONTRIBUTING.md: each changes one file, applies, and does what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TOPICS = re.findall(r"^\*\*(A [\w ]+)\*\*", PAGE, re.MULTILINE)
DIFFS = re.findall(r"^```diff\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FOLDERS = ("platform", "attacks", "defenses", "search_spaces", "src", "tests")

COLUMN = """
from backstop.platform.results.tables.frames import leaderboard_frame
from backstop.platform.results.tables.markdown import markdown
from backstop.platform.results.leaderboard.ranking import build_document
from tests.boards import runs

document = build_document(runs(), "made up")
assert "| score | less success than FedAvg | worst excess |" in markdown(document)
assert "asr_reduction_mean" in leaderboard_frame(document)
"""
METRIC = """
import backstop

final = backstop.run(backstop.Spec(model=backstop.Part("logistic"), rounds=1)).final
assert 0 <= final["final/worst_class_accuracy"] <= final["final/clean_accuracy"] <= 1
"""
DATASET = """
import backstop

assert "wine" in backstop.names("datasets")
spec = backstop.Spec(
    dataset=backstop.Part("wine"), model=backstop.Part("logistic"), clients=8, per_round=4,
    rounds=2, root_size=20,
)
assert backstop.run(spec).final["final/clean_accuracy"] > 0.3
"""
SCRIPTS = {"A column of the leaderboard": COLUMN, "A metric": METRIC, "A dataset": DATASET}


def test_each_topic_has_its_diff() -> None:
    assert list(SCRIPTS) == TOPICS
    assert len(DIFFS) == len(SCRIPTS)


@pytest.mark.parametrize(("topic", "diff"), list(zip(TOPICS, DIFFS, strict=False)), ids=TOPICS)
def test_a_diff_of_one_file_does_what_the_page_says(topic: str, diff: str, tmp_path: Path) -> None:
    assert len(re.findall(r"^\+\+\+ b/", diff, re.MULTILINE)) == 1
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=ignored)
    applied = subprocess.run(
        ["git", "apply", "-C1", "-"],
        cwd=tmp_path,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
        input=diff,
        capture_output=True,
        text=True,
        check=False,
    )
    assert applied.returncode == 0, f"{topic}: the diff no longer fits the file: {applied.stderr}"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPTS[topic]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
