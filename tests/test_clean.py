"""What ``clean`` says can go, what it removes when asked, and what it leaves alone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from backstop.platform import cli
from backstop.platform.results.tracking import drivers
from backstop.platform.results.tracking.store import Store, locate_store
from backstop.platform.sweeps import leftovers
from tests.test_sessions import session


@pytest.fixture
def litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store's folder in which something of each kind lies about, and things that are needed."""
    monkeypatch.setenv("BACKSTOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(leftovers, "removable", lambda store: {"finished"})
    folder = tmp_path / "s"
    for path, size in {
        "s/checkpoints/finished.pt": 2_000_000,
        "s/checkpoints/unfinished.pt": 3_000_000,
        "s/tune/Trial_1/error.txt": 400_000,
        "cache/starts/warm/old.pt": 1_000_000,
        "cache/starts/warm/new.pt": 1_000_000,
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(bytes(size))
    long_ago = time.time() - 31 * leftovers.DAY
    os.utime(tmp_path / "cache/starts/warm/old.pt", (long_ago, long_ago))
    (folder / "ray").mkdir()
    (folder / "ray" / "one").write_text(f"{os.uname().nodename}\n{session(tmp_path)}\n")
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_clean_says_what_can_go_and_removes_it_when_asked(
    litter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(litter.parent)
    for options in ([], ["--dry-run"]):
        assert cli.main(["clean", "--store", str(litter), *options]) == 0
        out, said = capsys.readouterr()
        assert [line.split("  ")[-1] for line in out.splitlines()] == [
            "1 Ray sessions of killed sweeps",
            "1 warm-ups not used for 30 days",
            "1 checkpoints of finished runs",
            "1 entries of Ray Tune's own state",
        ]
        assert "2.0 MB  1 checkpoints of finished runs" in out
        assert "3.4 MB can go; nothing was removed" in said
        assert files(litter.parent) == before
    assert cli.main(["clean", "--store", str(litter), "--yes"]) == 0
    assert "freed 3.4 MB" in capsys.readouterr().err
    assert files(litter.parent) == {"s/checkpoints/unfinished.pt", "cache/starts/warm/new.pt"}
    assert cli.main(["clean", "--store", str(litter), "--yes"]) == 0
    assert capsys.readouterr() == ("", "nothing can go\n")


def test_a_store_that_is_worked_on_keeps_what_its_sweep_writes(litter: Path) -> None:
    with drivers.at_work(litter):
        kinds = {kind.what for kind in leftovers.find_litter(locate_store(litter), litter)}
    assert kinds == {"Ray sessions of killed sweeps", "warm-ups not used for 30 days"}


def test_a_run_is_over_when_no_experiment_has_it_planned_or_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = {
        "one": {"a": "FINISHED", "b": "FINISHED", "c": "FINISHED", "d": "KILLED"},
        "two": {"b": "FAILED", "e": "FINISHED"},
    }
    plans = {"one": {"a": "", "f": ""}, "two": {"c": ""}}
    monkeypatch.setattr(leftovers, "_experiments", lambda store: iter(stored))
    monkeypatch.setattr(leftovers, "read_plan", lambda store, name: plans[name])
    monkeypatch.setattr(
        leftovers,
        "read_runs",
        lambda store, name, status: [
            SimpleNamespace(id=key, status=state) for key, state in stored[name].items()
        ],
    )
    assert leftovers.removable(Store("", "")) == {"a", "e"}


def test_clean_says_that_there_is_no_such_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BACKSTOP_CACHE", str(tmp_path / "cache"))
    assert cli.main(["clean", "--store", str(tmp_path / "absent")]) == 0
    assert capsys.readouterr().err == f"nothing can go: there is no folder {tmp_path / 'absent'}\n"
    assert not (tmp_path / "absent").exists()
