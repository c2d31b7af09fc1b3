"""The comparison with others: all do the same work, whoever does not is named, and what was
measured stands in a page and a file of figures.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def contenders(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # its files are scripts beside each other
    return importlib.import_module("contenders")


@pytest.fixture
def pair(contenders: Any) -> list[Any]:
    found = [contenders.Contender("table", name, []) for name in ("first", "other")]
    for item in found:
        item.samples, item.accuracy, item.moved = [90.0, 91.0], [0.80], [2.0]
    return found


def test_who_did_the_same_is_taken_for_it(contenders: Any, pair: list[Any]) -> None:
    first, other = pair
    other.accuracy, other.moved = [0.82], [2.1]
    assert not contenders.difference(other, first)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("samples", [90.0, 90.0], "trained on other samples"),
        ("accuracy", [0.74], "accuracy 0.740 against 0.800"),
        ("moved", [3.0], "moved the model 1.50 times as far"),
    ],
)
def test_who_did_other_work_is_named(
    contenders: Any, pair: list[Any], field: str, value: list[float], said: str
) -> None:
    first, other = pair
    setattr(other, field, value)
    assert contenders.difference(other, first) == said


def test_a_peer_that_cannot_be_installed_is_listed_with_the_reason(
    contenders: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(contenders.peers, "environment", lambda name: (None, f"no {name} here"))
    found = list(contenders.other_projects("table", tmp_path, ["pfl", "byzfl"], 2))
    assert [item.problem for item in found] == ["no pfl here", "no pfl here", "no byzfl here"]


def test_every_peer_is_pinned_to_exact_versions(contenders: Any) -> None:
    for name in contenders.peers.NAMES:
        lines = (BENCHMARKS / "peers" / f"{name}.txt").read_text().splitlines()
        assert contenders.peers.pinned(name)
        assert all("==" in line for line in lines if not line.startswith("#"))


def test_a_commit_that_git_does_not_know_is_refused(contenders: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--before nowhere: "):
        contenders.tree_of("nowhere", tmp_path / "before")


def test_without_actors_backstop_stays_on_one_thread(contenders: Any) -> None:
    options = argparse.Namespace(rounds=2, actors=0)
    found = contenders.our_contenders("image", options, BENCHMARKS.parent, "Backstop")
    clean = ["Backstop on one thread", "Backstop on one thread, attacked and defended"]
    assert [item.name for item in found] == clean


@pytest.mark.slow
def test_backstop_and_pytorch_by_hand_do_the_same(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    kinds = ["ours", "hand", "vmap", "stock"]
    sizes = ["--only", "table", "--rounds", "2", "--repetitions", "1", "--actors", "0"]
    command = [str(BENCHMARKS / "run.py"), *sizes, "--contenders", *kinds, "--out", str(page)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(page.with_suffix(".json").read_text())
    assert [item["did_the_same"] for item in found["rounds"]] == ["yes"] * 5
    assert all(len(item["seconds"]) == 1 for item in found["rounds"])
    assert "train, %" in page.read_text()
    assert "by hand, vmap" in page.read_text()


def test_the_parts_of_a_step_are_measured_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    step = importlib.import_module("step")
    monkeypatch.setattr(step.pooling, "COMPILED", True)  # what it switches is put back
    spent = step.measure(step.both_ways(step.noise()), 2)
    for ways in spent.values():
        assert [len(values) for values in ways.values()] == [2, 2]
        assert all(value > 0 for values in ways.values() for value in values)
    page = step.table(spent).splitlines()
    assert len(page) == len(spent) + 3  # a head of two lines, and what no part says
    rest, whole = (
        [float(entry.split()[0]) for entry in line.strip("| ").split(" | ")[1:]]
        for line in page[-3:-1]
    )
    listed = [line.strip("| ").split(" | ")[1:] for line in page[2:-3]]
    for way, total in enumerate(whole):
        parts = sum(float(row[way].split()[0]) for row in listed)
        assert parts + rest[way] == pytest.approx(total, abs=0.05)
