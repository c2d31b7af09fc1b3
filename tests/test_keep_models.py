"""Which runs keep their final models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backstop.platform import cli
from backstop.platform.results.figures.names import chain_label
from backstop.platform.results.leaderboard.best import best_runs
from backstop.platform.results.tracking.models import drop_models
from backstop.platform.results.tracking.runs import read_runs
from backstop.platform.results.tracking.store import locate_store
from backstop.platform.sweeps import ray_tune
from tests.test_backend import OneByOne

RUN = ["run", "--dataset", "synthetic", "--model", "logistic", "--rounds", "1", "--device", "cpu"]
SPACE = """
from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid

def few():
    base = Spec(
        model=Part("logistic"), clients=10, per_round=5, rounds=2, batch=16, root_size=20,
    )
    attack = "badnets+model_replacement(strength=3)"
    return grid(base, attack=[attack], defense=["median"])
"""


def models(store: Path) -> list[Path]:
    return list(store.glob("mlartifacts/*/*/artifacts/model.safetensors"))


def test_a_run_without_its_model_is_finished_and_says_so_when_it_is_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKSTOP_CACHE", str(tmp_path / "cache"))
    assert cli.main([*RUN, "--keep-models", "none", "--save", "saved.safetensors"]) == 0
    assert Path("saved.safetensors").exists(), "what is asked for in a file of its own is there"
    assert not models(Path("backstop-store"))
    assert "final models are not kept" in capsys.readouterr().err
    assert cli.main([*RUN, "--save", "again.safetensors"]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert "holds no model.safetensors: it was made with --keep-models none or best" in last
    assert cli.main(RUN) == 0, "nothing else needs the model"


def test_models_are_dropped_and_the_rest_of_a_run_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(RUN) == 0
    assert cli.main([*RUN, "--seed", "1"]) == 0
    store = locate_store(Path("backstop-store"))
    first, second = read_runs(store, "runs")
    assert drop_models(store, [first]) == 1
    assert drop_models(store, [first]) == 0
    (kept,) = models(Path("backstop-store"))
    assert kept.parents[1].name == second.run_id
    assert len(list(Path("backstop-store").rglob("spec.json"))) == 2


def test_the_best_runs_are_those_of_the_first_ranked_row() -> None:
    median = [{"name": "median", "params": {}}]
    runs = [{"id": "a", "spec": {"defense": median}}, {"id": "b", "spec": {"defense": []}}]
    rows = [
        {"defense": chain_label(median, "defense"), "rank": 1},
        {"defense": chain_label([], "defense"), "rank": 2},
    ]
    assert best_runs({"rows": rows, "runs": runs}).ids == {"a"}
    assert best_runs({"rows": rows[::-1], "runs": runs}).ids == {"b"}
    assert best_runs({"rows": [], "runs": runs}).ids == frozenset()
    reference = {**rows[1], "rank": None}
    assert best_runs({"rows": [reference, rows[0]], "runs": runs}).ids == {"a"}
    assert best_runs({"rows": [reference], "runs": runs}).ids == frozenset()


def test_a_sweep_keeps_the_models_of_the_best_defense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_tune, "RayTune", lambda *_: OneByOne())
    Path("few.py").write_text(SPACE)
    assert cli.main(["sweep", "few.py", "--keep-models", "best"]) == 0
    store = Path("backstop-store")
    board = json.loads((store / "leaderboards" / "few" / "leaderboard.json").read_text())
    best = best_runs(board)
    assert 0 < len(best.ids) < len(board["runs"])
    others = len(board["runs"]) - len(best.ids)
    assert len(models(store)) == len(best.ids)
    said = f"the final models of {best.defense} are kept, those of {others} other"
    assert said in capsys.readouterr().err
