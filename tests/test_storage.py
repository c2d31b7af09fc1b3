"""Checkpoints, warm-ups and starts in a folder or in an object store: whole, found from anywhere,
gone on with after a kill.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pyarrow import fs

from backstop.platform import cli, storage, vault
from backstop.platform.contract import Spec
from backstop.platform.experiment import Experiment, run
from backstop.platform.params import BadInput
from backstop.platform.rounds import checkpoint, starts
from backstop.platform.rounds.checkpoint import Checkpoint, Checkpointed
from backstop.platform.storage import Location, Remote
from tests.buckets import ObjectStore, needs_moto, object_store

TINY = ["--dataset", "synthetic", "--device", "cpu", "--model", "logistic", "--eval-every", "250"]
LONG = [*TINY, "--rounds", "2500"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("moto")) as started:
        yield started


@pytest.fixture
def arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """An address whose objects are files, by the same calls as any other object store's."""
    (tmp_path / "bucket" / "kept").mkdir(parents=True)
    system = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(storage, "_connected", lambda bucket, options: system)
    return Remote("s3://bucket", "kept")


def check_operations(folder: Location) -> None:
    assert storage.file_names(folder / "none") == set()
    assert not storage.exists(folder / "one")
    with pytest.raises(FileNotFoundError):
        storage.open_read(folder / "one")
    storage.delete(folder / "one")
    storage.write_whole(folder / "one", b"first")
    storage.write_whole(folder / "one", memoryview(b"second"))
    with storage.open_read(folder / "one") as file:
        assert file.read() == b"second"
    storage.write_whole(folder / "two", b"")
    assert storage.exists(folder / "two")
    assert {"one", "two"} <= storage.file_names(folder)
    storage.delete(folder / "one")
    assert not storage.exists(folder / "one")
    assert "one" not in storage.file_names(folder)


def test_a_folder_takes_what_is_written(tmp_path: Path) -> None:
    check_operations(tmp_path / "made")


def test_what_arrow_reaches_takes_what_is_written(arrow: Remote) -> None:
    check_operations(arrow)


@needs_moto
def test_an_object_store_takes_what_is_written(server: ObjectStore) -> None:
    check_operations(storage.locate(server.address("operations")))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ftp://host/path", "allowed; a store is a folder, s3://bucket/path or gs://bucket/path"),
        ("s3:///path", "is not allowed"),
        ("file:///tmp/store", "is not allowed"),
        ("s3://key:secret@bucket/path", r"--store s3://…@bucket/path holds a password"),
    ],
)
def test_another_address_is_refused(given: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        storage.locate(given)
    assert "secret" not in str(refused.value)


def test_an_address_keeps_its_options() -> None:
    found = storage.locate("s3://bucket/some/where/?scheme=http&endpoint_override=h:1")
    assert str(found / "a") == "s3://bucket/some/where/a?scheme=http&endpoint_override=h:1"
    assert isinstance(found, Remote)
    assert (found / "a").parent == found
    assert (found / "a").name == "a"
    assert str(storage.locate("gs://bucket") / "a") == "gs://bucket/a"
    assert storage.locate(str(found)) == found


@pytest.fixture(autouse=True)
def starts_at_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test keeps in an object store, others do not."""
    monkeypatch.delenv("BACKSTOP_STARTS", raising=False)
    yield
    vault.keep_with(Path())


def test_a_store_in_a_folder_keeps_no_starts_elsewhere() -> None:
    vault.keep_with(storage.locate("s3://bucket/path"))
    assert str(vault.cache()) == "s3://bucket/path/starts"
    vault.keep_with(Path("somewhere"))
    assert isinstance(vault.cache(), Path)


@pytest.mark.parametrize("uri", ["", "postgresql://host/runs"])
def test_an_object_store_needs_a_place_for_runs(
    uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert cli.main(["run", *TINY, "--store", "s3://bucket/path"]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("backstop: --store s3://bucket/path: ")
    assert "set MLFLOW_TRACKING_URI to a tracking server" in last


def test_an_object_store_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def away_twice() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("no answer")
        return "there"

    monkeypatch.setattr(storage, "PAUSE_S", 0.0)
    assert storage._patiently(away_twice) == "there"
    tries.clear()
    monkeypatch.setattr(storage, "PATIENCE_S", 0.0)
    with pytest.raises(OSError, match="no answer"):
        storage._patiently(away_twice)


def test_what_is_nowhere_else_is_written_patiently(
    arrow: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = storage._put, []

    def away_twice(location: Remote, content: bytes) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("no answer")
        real(location, content)

    monkeypatch.setattr(storage, "PAUSE_S", 0.0)
    monkeypatch.setattr(storage, "_put", away_twice)
    with pytest.raises(OSError, match="no answer"):
        storage.write_whole(arrow / "now_and_then", b"some rounds")
    storage.write_whole(arrow / "last", b"all rounds", patient=True)
    assert storage.file_names(arrow) == {"last"}


def test_a_start_and_a_warm_up_are_found_by_another_node(
    arrow: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("", "starts", "starts/warm"):
        (tmp_path / "bucket" / "kept" / folder).mkdir(exist_ok=True)
    spec = Spec(clients=12, per_round=6, rounds=1, batch=16, root_size=20, warmup=2)
    vault.keep_with(arrow)
    monkeypatch.setenv("BACKSTOP_CACHE", str(tmp_path / "first"))
    name = starts.save_start(tmp_path / "a.safetensors", {"weight": torch.ones(2)})
    warm = Experiment(spec, tmp_path, "cpu").state.params
    monkeypatch.setenv("BACKSTOP_CACHE", str(tmp_path / "second"))

    def never(*_: object) -> None:
        raise AssertionError("it is there already")

    monkeypatch.setattr("backstop.platform.experiment._warm_up", never)
    assert starts.find_start(name, tmp_path)["weight"].tolist() == [1, 1]
    assert torch.equal(Experiment(spec, tmp_path, "cpu").state.params, warm)
    assert not list((tmp_path / "second").rglob("*.pt"))


SHORT = Spec(clients=12, per_round=6, rounds=3, batch=16, root_size=20)


def check_resumes(folder: Location, data: Path) -> None:
    whole = list(run(SHORT, folder=data, device="cpu"))
    began = Checkpointed(Experiment(SHORT, data, "cpu"), Checkpoint(folder, SHORT.id))
    first = next(iter(began.rounds(0)))
    began.save()
    assert checkpoint.saved_ids(folder) == {SHORT.id}
    resumed = Checkpointed(Experiment(SHORT, data, "cpu"), Checkpoint(folder, SHORT.id))
    assert [record.metrics for record in resumed.records] == [first.metrics]
    while not resumed.done:
        list(resumed.rounds(0))
    assert [record.metrics for record in resumed.records] == [item.metrics for item in whole]
    resumed.checkpoint.drop()
    assert checkpoint.saved_ids(folder) == set()
    resumed.checkpoint.drop()  # nothing there is no harm


def test_a_round_that_is_interrupted_while_it_is_evaluated_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, whole = Checkpoint(tmp_path / "kept", SHORT.id), list(run(SHORT, device="cpu"))
    measure = Experiment._measure

    def interrupt(self: Experiment) -> object:
        if self.state.round == 2:
            raise KeyboardInterrupt
        return measure(self)

    began = Checkpointed(Experiment(SHORT, tmp_path, "cpu"), kept)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Experiment, "_measure", interrupt)
        list(began.rounds(60))
    began.save()
    resumed = Checkpointed(Experiment(SHORT, tmp_path, "cpu"), kept)
    while not resumed.done:
        list(resumed.rounds(0))
    assert [record.metrics for record in resumed.records] == [item.metrics for item in whole]


def test_an_experiment_goes_on_from_what_arrow_reaches(arrow: Remote, tmp_path: Path) -> None:
    check_resumes(arrow, tmp_path)


@needs_moto
def test_an_experiment_goes_on_from_an_object_store(server: ObjectStore, tmp_path: Path) -> None:
    check_resumes(storage.locate(server.address("resumed")), tmp_path)


def test_what_cannot_be_listed_is_said(arrow: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Remote) -> set[str]:
        raise OSError("AWS Error NETWORK_CONNECTION\nand more")

    monkeypatch.setattr(storage, "_listed", away)
    monkeypatch.setattr(storage, "PATIENCE_S", 0.0)
    said = "checkpoints in s3://bucket/kept cannot be listed: AWS Error NETWORK_CONNECTION$"
    with pytest.raises(BadInput, match=said):
        checkpoint.saved_ids(arrow)


def backstop(folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """A command of another node: of its own folder, home and cache."""
    folder.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "HOME": str(folder),
        "BACKSTOP_CACHE": str(folder / "cache"),
        "PYTHONWARNINGS": "ignore",
        **more,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "backstop.platform.cli", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def killed_once_saved(process: subprocess.Popen[str], checkpoints: Location) -> None:
    """Kill a command as soon as a checkpoint of its is there."""
    deadline = time.monotonic() + 120
    while not checkpoint.saved_ids(checkpoints):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def check_a_run_goes_on_elsewhere(folder: Path, store: str, **more: str) -> None:
    alone, _ = ended(backstop(folder / "alone", "run", *LONG, "--json"))
    checkpoints = storage.locate(store) / "checkpoints"
    began = backstop(folder / "began", "run", *LONG, "--store", store, **more)
    killed_once_saved(began, checkpoints)
    out, err = ended(
        backstop(folder / "on", "run", *LONG, "--store", store, "--json", **more),
    )
    assert "going on after round" in err
    for key in ("final", "rounds"):
        assert json.loads(out)[key] == json.loads(alone)[key]
    assert checkpoint.saved_ids(checkpoints) == set()


@pytest.mark.slow  # seconds of rounds, three times
@pytest.mark.timeout(600)
def test_a_run_goes_on_from_a_shared_folder_in_another_process(tmp_path: Path) -> None:
    check_a_run_goes_on_elsewhere(tmp_path, str(tmp_path / "shared"))


@needs_moto
@pytest.mark.slow  # seconds of rounds, three times
@pytest.mark.timeout(600)
def test_a_run_goes_on_from_an_object_store_in_another_process(
    server: ObjectStore, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    check_a_run_goes_on_elsewhere(tmp_path, server.address("single"), MLFLOW_TRACKING_URI=uri)


SPACE = """
from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid

def few():
    base = Spec(
        model=Part("logistic"), clients=10, per_round=5, rounds=400, batch=16, root_size=20,
        warmup=2,
    )
    attack = "badnets+model_replacement(strength=3)"
    return grid(base, attack=[attack], defense=["median"])
"""


@needs_moto
@pytest.mark.slow  # two sweeps, of which one is killed
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(900)
def test_a_sweep_goes_on_from_an_object_store_and_gives_the_same_bytes(
    server: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "few.py").write_text(SPACE)
    sweep = ["sweep", str(tmp_path / "few.py"), "--max-concurrent", "1"]
    ended(backstop(tmp_path / "whole", *sweep))
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    store = server.address("swept")
    began = backstop(tmp_path / "began", *sweep, "--store", store, MLFLOW_TRACKING_URI=uri)
    killed_once_saved(began, storage.locate(store) / "checkpoints")
    ended(backstop(tmp_path / "on", *sweep, "--store", store, MLFLOW_TRACKING_URI=uri))
    file = Path("backstop-store", "leaderboards", "few", "leaderboard.json")
    assert (tmp_path / "on" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert checkpoint.saved_ids(storage.locate(store) / "checkpoints") == set()
    assert storage.file_names(storage.locate(store) / "starts" / "warm")
