"""MLflow read back: what is written is read, sent twice is stored once, and a store that goes away
loses nothing.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from safetensors.torch import load_file

from backstop.platform.contract import Part, Record, Spec
from backstop.platform.params import BadInput
from backstop.platform.results.tracking import database, drivers, runs, store
from backstop.platform.results.tracking import log as tracking_log
from backstop.platform.results.tracking.description import run_command, run_params
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.locations import local_path, repair_locations
from backstop.platform.results.tracking.log import Log
from backstop.platform.results.tracking.runs import Run, read_runs, with_curves
from backstop.platform.results.tracking.soundness import check_reachable, read_only
from backstop.platform.results.tracking.store import (
    Store,
    database_file,
    locate_store,
    mlflow_client,
)
from backstop.platform.results.tracking.sweeps import (
    _died,
    mark_interrupted,
    open_parent,
    stop_runs,
)
from backstop.platform.results.tracking.ui import serve_ui
from backstop.platform.rounds.finals import final
from backstop.platform.rounds.origin import Origin
from backstop.platform.specs.spec import spec_from_json, validate
from tests.mounts import mounted

SPEC = Spec(
    dataset=Part("pictures"),
    model=Part("line"),
    attack=(Part("stamp"), Part("scale", {"factor": 5.0})),
    defense=(Part("clip", {"norm": 2.0}), Part("clip"), Part("middle")),
    rounds=12,
    seed=3,
)
HERE = Origin("cpu", "0123456789abcdef", {"defense clip": "012345"})


def record(number: int, accuracy: float = 0.5, **costs: float) -> Record:
    metrics = {
        "round/clean_accuracy": accuracy,
        "round/attack_success_rate": 1 - accuracy,
        "defense/kept_weight_benign": 0.25,
    }
    return Record(
        SPEC.id, number, metrics, {f"time/{name}": value for name, value in costs.items()}
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests of this file: making its tables takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    store = locate_store(folder)
    check_reachable(store)
    open_experiment(store, "first")
    return store


@pytest.fixture
def experiment(made: Store, request: pytest.FixtureRequest, toys: Path) -> tuple[Store, str, str]:
    """The store, a fresh experiment's id and its name."""
    name = request.node.name.replace("[", "-").replace("]", "")
    return made, open_experiment(made, name), name


def log(experiment: tuple[Store, str, str], spec: Spec = SPEC, **changes: Any) -> Log:
    return Log(experiment[0], experiment[1], spec, **{"origin": HERE, "space": "quick", **changes})


def points(store: Store, run_id: str) -> list[tuple[Any, ...]]:
    database = database_file(store)
    assert database is not None
    with sqlite3.connect(database) as connection:
        return list(
            connection.execute(
                "SELECT key, step, value, timestamp FROM metrics WHERE run_uuid = ? ORDER BY 1, "
                "2, 3",
                [run_id],
            )
        )


def few_runs(experiment: tuple[Store, str, str]) -> None:
    """Two finished runs and one that is not, with values that MLflow keeps in its own way."""
    for seed in (0, 1, 2):
        one = log(experiment, spec=SPEC.replace(seed=seed))
        for step in range(3):
            one.log(record(step, step / (seed + 3), train_s=0.5))
        if seed < 2:
            assert one.finish(final([record(2, 2 / (seed + 3))]) | {"final/odd": math.inf})
        else:
            assert one.flush()


@pytest.mark.parametrize("status", ["FINISHED", None])
def test_a_database_is_read_as_its_api_reads_it(
    experiment: tuple[Store, str, str], monkeypatch: pytest.MonkeyPatch, status: str | None
) -> None:
    """Of its tables only what a leaderboard needs is read, in few queries."""
    few_runs(experiment)
    store, _, name = experiment
    monkeypatch.setattr(database, "RUNS_AT_ONCE", 2)
    metrics = ["round/clean_accuracy", "round/attack_success_rate", "round/none"]

    def reading() -> list[Run]:
        found = read_runs(store, name, status=status)
        return with_curves(store, found, [run.id for run in found][:2], metrics)

    from_tables = reading()
    assert len(from_tables) == (2 if status else 3)
    assert sum(bool(run.curves) for run in from_tables) == 2
    monkeypatch.setattr(runs, "is_database", lambda _: False)
    assert reading() == from_tables


def test_runs_that_are_known_are_not_read_again(
    experiment: tuple[Store, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_runs(experiment)
    store, _, name = experiment
    known = read_runs(store, name)
    asked: list[list[str]] = []
    read = database.stored_runs

    def noted(store: Store, statuses: Mapping[str, str]) -> Iterator[database.Stored]:
        asked.append(list(statuses))
        return read(store, statuses)

    monkeypatch.setattr(database, "stored_runs", noted)
    assert read_runs(store, name, known=known) == known
    assert read_runs(store, name, known=known[:1]) == known
    assert asked == [[], [known[1].run_id]]
    mlflow_client(store.uri).delete_run(known[0].run_id)
    assert read_runs(store, name, known=known) == known[1:], "what is not there counts no more"


def test_what_is_written_is_read(experiment: tuple[Store, str, str]) -> None:
    store, number, name = experiment
    mother = open_parent(store, number, "quick", note="# quick")
    assert open_parent(store, number, "quick") == mother
    one = log(experiment, parent=mother)
    records = [record(step, step / 16, train_s=0.5) for step in range(4)]
    for item in records[:2]:
        one.log(item)
    assert one.flush()
    assert read_runs(store, name) == []
    assert read_runs(store, name) == []
    for item in records[2:]:
        one.log(item)
    assert one.finish(final(records), {"weight": torch.arange(3.0)}, {"notes/extra.txt": "hello"})
    (run,) = read_runs(store, name)
    assert run.id == SPEC.id
    assert spec_from_json(run.spec) == validate(SPEC)
    assert run.metrics == {
        "final/attack_success_rate": 13 / 16,
        "final/clean_accuracy": 3 / 16,
        "final/diverged": 0.0,
        "final/kept_weight_benign": 0.25,
    }
    assert (run.costs, run.fingerprint, run.status) == (
        {"time/total_train_s": 2.0},
        "cpu",
        "FINISHED",
    )
    assert [found.run_id for found in read_runs(store, name)] == [run.run_id]
    (drawn,) = with_curves(store, [run], [run.id], ["round/clean_accuracy"])
    assert drawn.curves == {"round/clean_accuracy": [(step, step / 16) for step in range(4)]}
    stored = mlflow_client(store.uri).get_run(run.run_id)
    assert stored.data.params == run_params(SPEC)
    assert stored.data.tags["mlflow.parentRunId"] == mother
    assert stored.data.tags["backstop.kind"] == "trial"
    assert stored.data.tags["backstop.space"] == "quick"
    assert "backstop run --dataset pictures" in stored.data.tags["mlflow.note.content"]
    folder = Path(store.artifacts, name, run.run_id, "artifacts")
    assert json.loads((folder / "spec.json").read_text())["id"] == SPEC.id
    assert load_file(folder / "model.safetensors")["weight"].tolist() == [0, 1, 2]
    assert (folder / "notes" / "extra.txt").read_text() == "hello"


def test_params_are_one_scalar_per_key(toys: Path) -> None:
    found = run_params(SPEC.replace(optimizer=Part("sgd", {"lr": 0.125})))
    assert found["attack.name"] == "stamp(size=3, target=0)+scale(factor=5.0)"
    assert found["defense.name"] == "clip(norm=2.0)+clip(norm=1.0)+middle(count=None, how=low)"
    assert found["attack.strength"] == found["attack.scale.factor"] == "5.0"
    assert (
        found["defense.clip.norm"],
        found["defense.clip.2.norm"],
        found["defense.middle.count"],
    ) == ("2.0", "1.0", "none")
    assert (
        found["dataset.name"],
        found["model.name"],
        found["model.width"],
        found["optimizer.lr"],
    ) == ("pictures", "line", "8", "0.125")
    assert (found["fl.rounds"], found["fl.attack_stop"], found["seed"]) == ("12", "none", "3")
    assert not {"fl.seed", "fl.precision"} & set(found)
    other = run_params(SPEC.replace(precision="bfloat16"))
    assert other == {**run_params(SPEC), "fl.precision": "bfloat16"}
    bare = run_params(SPEC.replace(attack=(), defense=()))
    assert (bare["attack.name"], bare["defense.name"], "attack.strength" in bare) == (
        "none",
        "fedavg",
        False,
    )


def test_command_gives_the_spec_again(toys: Path) -> None:
    line = run_command(validate(SPEC))
    assert "--attack 'stamp(size=3, target=0)+scale(factor=5.0)'" in line
    assert "--attack-stop none" in line
    assert "--per-round 20" in line
    assert "--precision" not in line
    assert "--precision bfloat16" in run_command(validate(SPEC.replace(precision="bfloat16")))


def test_sending_twice_stores_once(experiment: tuple[Store, str, str]) -> None:
    store, _, name = experiment
    records = [record(step, train_s=0.25) for step in range(3)]
    for finishes in (False, True, True):
        again = log(experiment)
        for item in records:
            again.log(item)
        assert again.finish(final(records)) if finishes else again.flush()
    (run,) = read_runs(store, name)
    assert again.run_id == run.run_id
    found = points(store, run.run_id)
    assert len({(key, step) for key, step, *_ in found}) == len(found) == 3 * 4 + 4 + 1
    assert run.costs == {"time/total_train_s": 0.75}


def test_a_failed_run_is_taken_up_again(experiment: tuple[Store, str, str]) -> None:
    store, _, name = experiment
    one = log(experiment)
    one.log(record(0))
    assert one.fail("ValueError: no luck")
    (run,) = read_runs(store, name, status=None)
    assert (run.status, run.metrics) == ("FAILED", {})
    two = log(experiment)
    two.log(record(1))
    assert two.flush()
    assert two.run_id == run.run_id
    assert read_runs(store, name, status=None)[0].status == "RUNNING"
    assert two.finish(final([record(0), record(1)]))
    assert two.fail("too late")
    assert [found.run_id for found in read_runs(store, name)] == [run.run_id]


def test_numbers_that_are_none_are_not_stored(experiment: tuple[Store, str, str]) -> None:
    store, _, name = experiment
    records = [
        record(0),
        Record(
            SPEC.id,
            1,
            {
                "round/clean_accuracy": 0.1,
                "round/train_loss": float("inf"),
                "round/x": float("nan"),
            },
        ),
    ]
    one = log(experiment)
    for item in records:
        one.log(item)
    assert one.finish(final(records))
    (run,) = read_runs(store, name)
    assert run.metrics == {"final/clean_accuracy": 0.1, "final/diverged": 1.0}
    assert {key for key, *_ in points(store, run.run_id)}.isdisjoint(
        {"round/train_loss", "round/x"}
    )


def test_a_store_that_goes_away_loses_nothing(
    experiment: tuple[Store, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, name = experiment
    records = [record(step, train_s=1.0) for step in range(4)]
    one = log(experiment)
    one.log(records[0])
    assert one.flush()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = store._replace(uri=f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    one.store = gone
    for item in records[1:3]:
        one.log(item)
    assert not one.flush()
    assert "127.0.0.1" in one.error
    assert not one.finish(final(records[:3]))
    assert read_runs(store, name) == []
    two = log(experiment)
    for item in records:  # as the checkpoint keeps them
        two.log(item)
    assert two.finish(final(records))
    assert two.error == ""
    (run,) = with_curves(store, read_runs(store, name), [SPEC.id], ["round/clean_accuracy"])
    assert [step for step, _ in run.curves["round/clean_accuracy"]] == [0, 1, 2, 3]
    assert run.costs == {"time/total_train_s": 4.0}
    assert len(points(store, run.run_id)) == 4 * 4 + 4 + 1


def test_a_dead_store_is_left_alone_for_a_while(
    experiment: tuple[Store, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = log(experiment)
    one.log(record(0))
    calls = []

    def dead(uri: str) -> None:
        calls.append(uri)
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(store, "mlflow_client", dead)
    assert not one.flush(force=False)
    assert not one.flush(force=False)
    assert (len(calls), one.error) == (1, "nobody there")
    assert not one.flush()
    assert len(calls) == 2


@pytest.mark.parametrize(("code", "stored"), [("BAD_REQUEST", True), ("INTERNAL_ERROR", False)])
def test_data_that_two_processes_name_at_once_is_named_by_both(
    code: str, stored: bool, experiment: tuple[Store, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos import databricks_pb2

    client = mlflow_client(experiment[0].uri)
    log_inputs = client.log_inputs
    refused: list[tuple[Any, ...]] = []

    def refuse_once(*given: Any) -> None:
        if not refused:
            refused.append(given)
            raise MlflowException("UNIQUE constraint failed", getattr(databricks_pb2, code))
        log_inputs(*given)

    monkeypatch.setattr(client, "log_inputs", refuse_once)
    one = log(experiment)
    one.log(record(0))
    assert one.flush() == stored
    assert len(refused) == 1
    assert ("UNIQUE" in one.error) != stored


def test_our_own_mistakes_are_not_taken_for_a_dead_store(
    experiment: tuple[Store, str, str],
) -> None:
    one = log(experiment)
    one.log(Record(SPEC.id, 0, {"no@metric": 1.0}))
    with pytest.raises(Exception, match="no@metric"):
        one.flush()


def test_a_spec_too_long_for_a_tag_is_read_from_its_artifact(
    experiment: tuple[Store, str, str],
) -> None:
    store, _, name = experiment
    long = SPEC.replace(
        defense=tuple(Part("clip", {"norm": 1.0 + place / 1024}) for place in range(250))
    )
    one = log(experiment, long)
    one.log(record(0))
    assert one.finish({"final/clean_accuracy": 0.5})
    (run,) = read_runs(store, name)
    assert spec_from_json(run.spec) == validate(long)


RACE = """
import os, sys
from pathlib import Path
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.store import client_class, locate_store

store = locate_store(Path(sys.argv[1]))
client_class()  # imported once, before the processes part
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        # one call: lines of four processes do not mix
        os.write(1, f"{open_experiment(store, 'one')}\\n".encode())
        os._exit(0)
    children.append(child)
sys.exit(max(os.waitpid(child, 0)[1] for child in children))
"""


def test_processes_that_open_a_new_store_at_once_agree(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n" * 4, "")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate_store(tmp_path) == (f"sqlite:///{tmp_path}/mlflow.db", f"{tmp_path}/mlartifacts")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///here/runs.db")
    assert locate_store(Path("elsewhere")) == (
        f"sqlite:///{tmp_path}/here/runs.db",
        f"{tmp_path}/here/mlartifacts",
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000/")
    assert locate_store(tmp_path) == ("http://host:5000", "")
    for wrong in ("sqlite://", "sqlite:///:memory:", "mlruns", f"file://{tmp_path}"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", wrong)
        with pytest.raises(BadInput, match="MLFLOW_TRACKING_URI"):
            locate_store(tmp_path)


@pytest.mark.parametrize("name", ["q?mark", "100%25", "x%41y", "a#b", "ö x"])
def test_a_store_keeps_to_its_own_folder_whatever_its_name(
    tmp_path: Path, made: Store, name: str
) -> None:
    """A ? begins the options of a URI and %41 is an A: unquoted, every store q?… would be one
    database called q.
    """
    store = locate_store(tmp_path / name)
    file = database_file(store)
    assert file == tmp_path / name / "mlflow.db"
    (tmp_path / name / "mlartifacts").mkdir(parents=True)
    shutil.copy(database_file(made) or "", file)  # its tables, which take seconds to make
    repair_locations(store)
    one = Log(store, open_experiment(store, "own"), Spec(), origin=HERE)
    assert one.finish({"final/clean_accuracy": 0.5})
    assert [run.metrics for run in read_runs(store, "own")] == [{"final/clean_accuracy": 0.5}]
    assert [place.name for place in tmp_path.iterdir()] == [name]
    assert len(list((tmp_path / name / "mlartifacts/own").glob("*/artifacts/spec.json"))) == 1


def test_a_new_store_with_a_question_mark(tmp_path: Path) -> None:
    store = locate_store(tmp_path / "q?%41")
    check_reachable(store)
    assert open_experiment(store, "own") == "1"
    assert [place.name for place in tmp_path.iterdir()] == ["q?%41"]


def test_options_in_the_uri_of_a_database_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////data/mlflow.db?timeout=5")
    with pytest.raises(BadInput, match="%3F"):
        locate_store(Path("any"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite+pysqlite:////data/q%3F/mlflow.db")
    assert database_file(locate_store(Path("any"))) == Path("/data/q?/mlflow.db")


def spent(store: Store, seed: int) -> Path:
    """A finished run in the experiment "moves"; where its artifacts are."""
    one = Log(store, open_experiment(store, "moves"), Spec(seed=seed), origin=HERE)
    assert one.finish({"final/clean_accuracy": 0.5})
    place = local_path(mlflow_client(store.uri).get_run(str(one.run_id)).info.artifact_uri)
    assert place is not None
    assert (place / "spec.json").is_file()
    return place


def test_a_moved_and_a_copied_store_write_into_their_own_folder(
    made: Store, tmp_path: Path
) -> None:
    first, moved, copied = (tmp_path / name for name in ("first", "moved", "copied"))
    first.mkdir()
    shutil.copy(database_file(made) or "", first / "mlflow.db")
    (first / "mlartifacts").mkdir()
    repair_locations(locate_store(first))
    spent(locate_store(first), 0)
    shutil.copytree(first, copied)
    first.rename(moved)
    for folder in (moved, copied):
        store = locate_store(folder)
        assert f"from {first}" in repair_locations(store)
        assert repair_locations(store) == ""
        assert spent(store, 1).is_relative_to(folder)
        for run in read_runs(store, "moves"):
            place = local_path(mlflow_client(store.uri).get_run(run.run_id).info.artifact_uri)
            assert place is not None
            assert place.is_relative_to(folder) and (place / "spec.json").is_file()
    assert not first.exists()


def test_a_database_without_its_artifacts_says_where_they_are(made: Store, tmp_path: Path) -> None:
    spent(made, 0)
    shutil.copy(database_file(made) or "", tmp_path / "mlflow.db")
    with pytest.raises(BadInput, match="artifacts are still in") as caught:
        repair_locations(locate_store(tmp_path))
    line = str(caught.value).partition("run: ")[2]
    subprocess.run(line, shell=True, check=True)
    assert "was moved or copied" in repair_locations(locate_store(tmp_path))
    assert spent(locate_store(tmp_path), 1).is_relative_to(tmp_path)


HELD = """
import sys
from pathlib import Path
from backstop.platform.results.tracking import drivers

with drivers.at_work(Path(sys.argv[1])) as name:
    print(name, flush=True)
    sys.stdin.read()
"""


def test_runs_of_a_killed_process_are_interrupted_and_those_of_a_live_one_are_not(
    experiment: tuple[Store, str, str],
) -> None:
    store, number, name = experiment
    folder = Path(store.artifacts).parent
    with subprocess.Popen(
        [sys.executable, "-c", HELD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        driver = process.stdout.readline().strip()
        mother = open_parent(store, number, "quick", driver=driver)
        one = log(experiment, driver=driver)
        assert one.flush()
        assert drivers.gone(folder, driver) is False
        assert mark_interrupted(store, folder, name) == (0, 0)
        process.kill()
        process.wait()
    assert drivers.gone(folder, driver) is True
    assert mark_interrupted(store, folder, "first") == (0, 0), "another experiment"
    assert mark_interrupted(store, folder) == (1, 1), "the sweep and its run"
    states = {
        run: mlflow_client(store.uri).get_run(run).info.status for run in (mother, str(one.run_id))
    }
    assert set(states.values()) == {"KILLED"}
    assert mark_interrupted(store, folder, name) == (0, 0)
    assert drivers.gone(folder, driver) is None, "nothing names it any more"


def test_an_interrupted_run_belongs_to_the_next_driver(experiment: tuple[Store, str, str]) -> None:
    store, number, name = experiment
    folder = Path(store.artifacts).parent
    with drivers.at_work(folder) as driver:
        one = log(experiment, driver=driver)
        assert one.flush()
        stop_runs(store, number, driver)
    assert [run.status for run in read_runs(store, name, status=None)] == ["KILLED"]
    with drivers.at_work(folder) as driver:
        two = log(experiment, driver=driver)
        assert two.flush()
        assert mark_interrupted(store, folder, name) == (0, 0)
        assert two.finish({"final/clean_accuracy": 0.5})
        stop_runs(store, number, driver)
    assert [run.status for run in read_runs(store, name, status=None)] == ["FINISHED"]


def test_a_run_that_a_server_has_made_twice_is_left_once(
    experiment: tuple[Store, str, str],
) -> None:
    """A server that dies between a run's making and its answer is asked a second time."""
    store, number, name = experiment
    with drivers.at_work(Path(store.artifacts).parent) as driver:
        one = log(experiment, driver=driver)
        assert one.flush()
        client = mlflow_client(store.uri)
        made = client.get_run(str(one.run_id)).data.tags
        double = client.create_run(number, tags=made).info.run_id
        assert one.finish({"final/clean_accuracy": 0.5})
        stop_runs(store, number, driver)
    runs = client.search_runs([number], "tags.`backstop.kind` = 'trial'")
    assert [run.info.run_id for run in runs] == [one.run_id]
    assert client.get_run(double).info.lifecycle_stage == "deleted"
    assert [run.status for run in read_runs(store, name, status=None)] == ["FINISHED"]


def test_artifacts_that_an_object_store_does_not_take_are_sent_later(
    experiment: tuple[Store, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class UploadFailedError(Exception):
        """As boto3's own, of no class that MLflow or Python knows."""

    store, _, name = experiment
    one = log(experiment)
    assert one.flush()
    one._artifact_uri = "s3://bucket/runs"
    client = mlflow_client(store.uri)

    def fails(*_: object) -> None:
        raise UploadFailedError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(client, "log_artifacts", fails)
        assert not one.finish({"final/clean_accuracy": 0.5})
        assert one.error == "artifacts in s3://bucket/runs: no answer"
    assert log(experiment).finish({"final/clean_accuracy": 0.5})
    assert [run.status for run in read_runs(store, name, status=None)] == ["FINISHED"]


def test_what_a_killed_process_had_begun_to_write_goes_when_the_run_is_sent(
    experiment: tuple[Store, str, str],
) -> None:
    store, _, _ = experiment
    one = log(experiment)
    assert one.flush()
    artifacts = mlflow_client(store.uri).get_run(str(one.run_id)).info.artifact_uri
    folder = Path(artifacts.removeprefix("file://"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".spec.json.4711").write_bytes(b"{")
    assert log(experiment).finish({"final/clean_accuracy": 0.5})
    assert [path.name for path in folder.iterdir()] == ["spec.json"]


def test_a_server_s_runs_are_not_judged_from_another_folder(tmp_path: Path, made: Store) -> None:
    assert drivers.gone(tmp_path, "unknown") is None
    assert not _died(Store("http://host:5000", ""), tmp_path, "unknown")
    assert _died(made, tmp_path, "unknown"), "a database's drivers are beside it"


def test_a_store_that_can_only_be_read_is_read(made: Store, tmp_path: Path) -> None:
    spent(made, 0)
    source, target = Path(made.artifacts).parent, tmp_path / "mounted"
    target.mkdir()
    with mounted("--bind", str(source), str(target)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(target)], check=True)
        store = locate_store(target)
        assert read_only(store)
        check_reachable(store, write=False)
        assert read_runs(store, "moves")
        with pytest.raises(BadInput, match="Read-only file system"):
            check_reachable(store)


def test_a_full_disk_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with mounted("-t", "tmpfs", "-o", "size=120k", "tmpfs", str(tmp_path)):
        with pytest.raises(BadInput, match="disk is full: 120 KiB are free"):
            check_reachable(locate_store(tmp_path))
        assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        check_reachable(locate_store(tmp_path / "file"))
    for content in (b"no database at all", b"SQLite format 3\x00" + b"\x01" * 5000):
        (tmp_path / "mlflow.db").write_bytes(content)
        with pytest.raises(BadInput, match="not a sound MLflow database"):
            check_reachable(locate_store(tmp_path))
    (tmp_path / "mlflow.db").unlink()
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(BadInput, match="not a sound MLflow database"):
        check_reachable(locate_store(tmp_path))


def test_a_database_that_was_cut_short_is_refused(made: Store, tmp_path: Path) -> None:
    database = database_file(made)
    assert database is not None
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes()[:-50_000])
    with pytest.raises(BadInput, match="not a sound MLflow database"):
        check_reachable(locate_store(tmp_path))


def test_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Health(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing on stderr."""

    server = HTTPServer(("127.0.0.1", 0), Health)
    Thread(target=server.serve_forever, daemon=True).start()
    store = Store(f"http://127.0.0.1:{server.server_port}", "")
    check_reachable(store)
    Health.status = 404  # something answers; an MLflow behind a gateway may hide its health page
    check_reachable(store)
    Health.status = 503
    with pytest.raises(BadInput, match="answers 503"):
        check_reachable(store)
    server.shutdown()
    server.server_close()
    with pytest.raises(BadInput, match="cannot be reached"):
        check_reachable(store)


def test_what_is_not_there_is_said(made: Store, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'first'"):
        read_runs(made, "frist")
    with pytest.raises(BadInput, match="no database yet"):
        read_runs(locate_store(tmp_path), "first")


@pytest.mark.parametrize("name", ["", " a", "a/b", "..", "a'b", "x" * 101, "end."])
def test_experiment_names(made: Store, name: str) -> None:
    with pytest.raises(BadInput, match="is not allowed"):
        open_experiment(made, name)


def test_a_deleted_experiment_is_refused(experiment: tuple[Store, str, str]) -> None:
    store, number, name = experiment
    mlflow_client(store.uri).delete_experiment(number)
    with pytest.raises(BadInput, match="was deleted") as caught:
        open_experiment(store, name)
    assert str(caught.value).partition(" or run: ")[2].startswith("MLFLOW_TRACKING_URI=sqlite:")


def test_finals_are_the_mean_of_the_last_tenth() -> None:
    records = [
        Record("", step, {"round/clean_accuracy": step / 32, "defense/masked_fraction": 0.5})
        for step in range(20)
    ]
    records[19] = Record("", 19, {"round/clean_accuracy": 0.25, "time/odd": 1.0})
    assert final(records) == {
        "final/clean_accuracy": (18 / 32 + 0.25) / 2,
        "final/masked_fraction": 0.5,
        "final/diverged": 0.0,
    }
    assert final([]) == {"final/diverged": 0.0}
    assert final([Record("", 0, {"defense/x": float("nan")}), Record("", 1, {})]) == {
        "final/diverged": 0.0
    }


def test_ui(
    made: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[list[str]] = []

    def call(line: list[str], env: dict[str, str]) -> int:
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    assert serve_ui(Store("http://host:5000", ""), 5001) == 0
    assert lines == []
    assert "http://host:5000" in capsys.readouterr().err
    assert serve_ui(made, 5001) == 0
    assert lines[0][1:6] == ["-m", "mlflow", "server", "--backend-store-uri", made.uri]
    assert serve_ui(made, 5001) == 130
    with pytest.raises(BadInput, match="no database yet"):
        serve_ui(locate_store(tmp_path), 5001)


def test_what_another_process_stores_at_the_same_moment_is_found_there(
    experiment: tuple[Store, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = MlflowClient.log_batch
    refused: list[dict[str, Any]] = []

    def refuse_first(self: MlflowClient, *given: Any, **named: Any) -> None:
        send(self, *given, **named)  # by the other process
        if not refused:
            refused.append(named)
            raise MlflowException("UNIQUE constraint failed", error_code=BAD_REQUEST)

    monkeypatch.setattr(MlflowClient, "log_batch", refuse_first)
    one = log(experiment)
    one.log(record(0))
    assert one.finish(final([record(0)])) and refused
    metrics = mlflow_client(experiment[0].uri).get_metric_history(
        str(one.run_id), "round/clean_accuracy"
    )
    assert len(metrics) == 1


def test_what_a_killed_process_was_about_to_send_goes_with_the_run(
    experiment: tuple[Store, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tracking_log, "local_path", lambda _: None)  # as where a server has them
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    one = log(experiment)
    one.log(record(0))
    assert one.flush()
    outbox = temporary / f"backstop-{one.run_id}"
    outbox.mkdir()
    (outbox / "half.safetensors").write_bytes(b"half of the")
    assert one.finish(final([record(0)]), {"weight": torch.arange(3.0)})
    assert list(temporary.iterdir()) == []
    listed = mlflow_client(experiment[0].uri).list_artifacts(str(one.run_id))
    assert {file.path for file in listed} == {"model.safetensors", "spec.json"}


@pytest.mark.slow
def test_a_real_server_that_goes_away_and_comes_back(
    tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own server, with artifacts through it: stopped in mid-run, started again, nothing is
    lost.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    store = locate_store(tmp_path)
    root = f"sqlite:///{tmp_path}/server.db"
    line = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        root,
        "--artifacts-destination",
        str(tmp_path / "kept"),
    ]
    line += ["--serve-artifacts", "--workers", "1", "--port", str(port)]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}

    def start() -> subprocess.Popen[bytes]:
        server = subprocess.Popen(
            line,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(240):
            try:
                check_reachable(store)
            except BadInput:
                time.sleep(0.5)
            else:
                return server
        pytest.fail("the server did not start")

    def stop(server: subprocess.Popen[bytes]) -> None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    records = [record(step, train_s=1.0) for step in range(3)]
    server = start()
    try:
        number = open_experiment(store, "far")
        assert open_experiment(store, "far") == number
        one = Log(store, number, SPEC, origin=HERE, parent=open_parent(store, number, "quick"))
        one.log(records[0])
        assert one.flush()
        stop(server)
        one.log(records[1])
        begun = time.monotonic()
        assert not one.flush()
        assert time.monotonic() - begun < 60
        assert not one.flush(force=False)
        server = start()
        one.log(records[2])
        assert one.finish(final(records), {"weight": torch.arange(3.0)})
        (run,) = with_curves(store, read_runs(store, "far"), [SPEC.id], ["round/clean_accuracy"])
        assert [step for step, _ in run.curves["round/clean_accuracy"]] == [0, 1, 2]
        assert (run.status, run.costs) == ("FINISHED", {"time/total_train_s": 3.0})
        assert {path.name for path in (tmp_path / "kept").rglob("*.*")} == {
            "spec.json",
            "model.safetensors",
        }
    finally:
        stop(server)
