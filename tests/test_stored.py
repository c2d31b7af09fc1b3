"""Stored is computed: a run that is not stored is named, kept and sent later; a finished run stays
as it is; other data are refused, and changed code is said.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load

from backstop.platform import cli, plugins
from backstop.platform.contract import Part, Record, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.results.leaderboard import ranking
from backstop.platform.results.leaderboard.verification import differences, recompute
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.log import Log
from backstop.platform.results.tracking.runs import (
    Run,
    find_run,
    model_content,
    read_runs,
    with_curves,
)
from backstop.platform.results.tracking.soundness import check_reachable
from backstop.platform.results.tracking.store import (
    Store,
    database_file,
    locate_store,
    mlflow_client,
)
from backstop.platform.results.tracking.sweeps import (
    close_parent,
    open_parent,
    read_plan,
    write_plan,
)
from backstop.platform.rounds import origin
from backstop.platform.rounds.checkpoint import Checkpoint
from backstop.platform.rounds.finals import final
from backstop.platform.rounds.origin import Origin
from backstop.platform.specs.spec import validate
from backstop.platform.sweeps import waiting
from backstop.platform.sweeps.plan import run_words
from backstop.platform.sweeps.queues import Fixed, Queue, Unstored
from backstop.platform.sweeps.session import Destination
from backstop.platform.sweeps.waiting import Patience
from backstop.platform.training import loading
from benchmarks.servers import LOOPBACK, free_port
from tests import by_hand
from tests.by_hand import board, done, planned

pytestmark = pytest.mark.xdist_group("ray")
SPACE = """
from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid

BASE = Spec(
    dataset=Part("{dataset}"{params}), model=Part("logistic"), clients=4, per_round=4,
    rounds={rounds}, batch=16, root_size=4, alpha=None, malicious=0.25,
    optimizer=Part("sgd", {{"lr": 0.1}}),
)

def little():
    return grid(BASE, attack=["{attack}"], defense=["median", "trimmed_mean"], seed=range(1))
"""
HERE = Origin("cpu", "0123456789abcdef", {"defense median": "012345"})
RUN = ["--rounds", "2", "--clients", "4", "--per-round", "4", "--root-size", "4", "--device", "cpu"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Each test has a folder of its own for work, data and stores, and reads its data anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKSTOP_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    yield tmp_path
    forget()


def forget() -> None:
    """What a new process would not know: the data as they were read, the digests of files."""
    for known in (loading._load, loading._content, plugins.digest):
        known.cache_clear()


def space(
    folder: Path,
    dataset: str = "digits",
    params: str = "",
    attack: str = "badnets",
    rounds: int = 3,
) -> str:
    (folder / "little.py").write_text(
        SPACE.format(dataset=dataset, params=params, attack=attack, rounds=rounds)
    )
    return "little.py"


def table(folder: Path, shift: int = 0) -> None:
    """t.csv, whose features differ with the shift."""
    lines = [
        f"{(row * 7 + shift) % 11},{row * 5 % 13},{row * 3 % 17},{row % 2}" for row in range(120)
    ]
    (folder / "data" / "t.csv").write_text("\n".join(["a,b,c,y", *lines]) + "\n")


TABLE = ["run", *RUN, "--dataset", "table(path=t.csv, label=y)", "--model", "logistic"]


# -- what is not stored is named, kept and sent later


def test_what_waits_is_sent_without_training(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything of the sweep is done and waits: it is stored, and neither a round nor Ray is
    needed.
    """
    file = space(elsewhere)
    whole = by_hand.whole(Path(file).read_text()).board
    open_experiment(locate_store(Path("cut")), "little")
    for spec in planned(file):
        done(spec, elsewhere, elsewhere / "cut" / "checkpoints")
    capsys.readouterr()
    monkeypatch.setattr(Experiment, "round", lambda _: pytest.fail("nothing is left to train"))
    assert cli.main(["sweep", file, "--store", "cut", "--device", "cpu"]) == 0
    messages = capsys.readouterr().err
    assert "stored 6 runs that waited" in messages and "without training again" in messages
    assert board("cut") == whole
    assert json.loads(board("cut"))["missing_runs"] == []
    assert not list(Path("cut", "checkpoints").glob("*.pt"))


def test_the_checkpoint_of_a_stored_run_goes_with_the_next_sweep(elsewhere: Path) -> None:
    """Whoever stored it was killed before it was removed."""
    file = space(elsewhere)
    by_hand.stored("whole", file, elsewhere)
    checkpoints = Path("whole", "checkpoints")
    first, *_ = planned(file)
    done(first, elsewhere, checkpoints)
    done(first.replace(seed=99), elsewhere, checkpoints)  # another sweep's
    assert cli.main(["sweep", file, "--store", "whole", "--device", "cpu"]) == 0
    assert [path.stem for path in checkpoints.glob("*.pt")] == [first.replace(seed=99).id]


def test_a_board_that_lacks_planned_runs_says_so_everywhere(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = space(elsewhere)
    by_hand.stored("whole", file, elsewhere)
    place = locate_store(Path("whole"))
    experiment = open_experiment(place, "little")
    everything = {spec.id: run_words(spec) for spec in planned(file)}
    write_plan(place, open_parent(place, experiment, "little"), everything)
    assert read_plan(place, "little") == everything
    assert cli.main(["leaderboard", "--experiment", "little", "--store", "whole"]) == 0
    whole = board("whole")
    assert "INCOMPLETE" not in capsys.readouterr().out

    lost = next(spec for spec in planned(file) if spec.defense and spec.defense[0].name == "median")
    run = find_run(place, "little", lost)
    assert run is not None
    mlflow_client(place.uri).delete_run(run.run_id)
    assert cli.main(["leaderboard", "--experiment", "little", "--store", "whole"]) == 0
    sentence = "INCOMPLETE: 1 planned run is missing: badnets("
    assert sentence in " ".join(capsys.readouterr().out.split())
    folder = Path("whole", "leaderboards", "little")
    for name in ("leaderboard.md", "leaderboard.html"):
        assert sentence in (folder / name).read_text(), name
    document = json.loads(board("whole"))
    assert document["missing_runs"] == [{"id": lost.id, "run": run_words(lost)}]
    assert differences(document, recompute(document)) == []

    mlflow_client(place.uri).restore_run(run.run_id)
    assert cli.main(["leaderboard", "--experiment", "little", "--store", "whole"]) == 0
    assert board("whole") == whole


def test_long_plans_are_read_as_they_were_written(elsewhere: Path) -> None:
    place = locate_store(Path("s"))
    experiment = open_experiment(place, "little")
    parent = open_parent(place, experiment, "little")
    long = {f"{number:064d}": f"badnets × median {number} " + "x" * 90 for number in range(700)}
    write_plan(place, parent, long)
    assert read_plan(place, "little") == long
    write_plan(place, parent, {"a" * 64: "one"})
    assert read_plan(place, "little") == {"a" * 64: "one"}
    assert read_plan(place, "unknown") == {}


def test_the_end_of_a_sweep_insists(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is asked again; what it takes at last is stored once, with the
    checkpoint's origin.
    """
    spec = planned(space(elsewhere))[0]
    place = locate_store(Path("s"))
    experiment = open_experiment(place, "little")
    made, records = done(spec, elsewhere, Path("checkpoints"))
    queue = Queue(Fixed([spec]), {})
    assert queue.fill()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = Store(f"http://127.0.0.1:{free.getsockname()[1]}", "")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(waiting, "SOON", 0.01)
    monkeypatch.setenv("BACKSTOP_PATIENCE", "0.05")
    queue.unstored[spec.id] = Unstored("away", kept=True)
    away = Destination(gone, experiment, Path("checkpoints"), space="little")
    impatient = Patience(gone, print)
    assert waiting.insist(queue, away, impatient) == [] and list(queue.unstored) == [spec.id]
    assert waiting.send([spec], queue, away) == [] and "127.0.0.1" in queue.unstored[spec.id].reason
    assert waiting.insist(queue, away._replace(store=place), impatient) == [spec.id]
    assert queue.unstored == {}
    told = queue.results[spec.id]
    assert told is not None
    assert told["time/total_aggregate_s"] > 0  # what a search may show
    figures = {name: value for name, value in told.items() if name.startswith("final/")}
    assert figures == final(records)
    (run,) = read_runs(place, "little")
    assert (run.metrics, run.origin.difference(made.origin)) == (final(records), "")
    assert set(load(model_content(place, run.run_id))) == set(
        made.built.net.tensors(made.state.params, made.state.buffers)
    )
    assert not list(Path("checkpoints").iterdir())


def test_a_store_that_is_moved_in_mid_run_is_not_replaced_by_an_empty_one(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was trained meanwhile waits in the old place; put beside the moved store, it is sent."""
    file = space(elsewhere)
    place = locate_store(Path("s"))
    experiment = open_experiment(place, "little")
    one, *rest = planned(file)
    trained, records = done(one, elsewhere, Path("s/checkpoints"))
    running = log(place, experiment, one, records[:1], trained.origin)
    assert running.flush()
    Path("s").rename("t")
    running.log(records[-1])
    assert not running.finish(final(records))
    assert "s/mlflow.db is not there any more" in running.error and "--store" in running.error
    with pytest.raises(BadInput, match="is not there any more"):
        close_parent(place, str(running.run_id), "FAILED")
    assert not Path("s").exists()
    for spec in rest:
        done(spec, elsewhere, Path("t/checkpoints"))
    mlflow_client.cache_clear()
    assert cli.main(["sweep", file, "--store", "t", "--device", "cpu"]) == 0
    assert "stored 6 runs that waited" in capsys.readouterr().err
    assert board("t") == by_hand.whole(Path(file).read_text()).board


@pytest.mark.timeout(600)
def test_a_sweep_that_cannot_store_fails_and_the_next_one_sends(elsewhere: Path) -> None:
    """Something lies where the artifacts go: every run is trained and none is stored."""
    file = space(elsewhere)
    open_experiment(locate_store(Path("s")), "little")
    shutil.rmtree("s/mlartifacts", ignore_errors=True)
    Path("s/mlartifacts").write_text("in the way")
    first = command("sweep", file, "--store", "s", "--device", "cpu")
    assert first.returncode == 1, first.stderr
    assert "6/6 done" not in first.stderr and "6 not stored yet" in first.stderr
    assert "6 runs trained but not stored: " in first.stderr and "mlartifacts" in first.stderr
    named = [spec for spec in planned(file) if spec.id[:12] in first.stderr]
    assert len(named) == 5 and "; and 1 more" in first.stderr
    assert "the same command sends what waits, without training again" in first.stderr
    assert not Path("s/leaderboards/little/leaderboard.json").exists()
    assert len(list(Path("s/checkpoints").glob("*.pt"))) == 6
    Path("s/mlartifacts").unlink()
    second = command("sweep", file, "--store", "s", "--device", "cpu")
    assert second.returncode == 0, second.stderr
    assert "stored 6 runs that waited" in second.stderr and "Ray" not in second.stderr
    assert board("s") == by_hand.whole(Path(file).read_text()).board


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "backstop.platform.cli", *arguments]
    return subprocess.run(
        line, env=os.environ | environment, capture_output=True, text=True, timeout=500, check=False
    )


class Server:
    """MLflow's own server on this machine."""

    def __init__(self, folder: Path, host: str = LOOPBACK) -> None:
        self.host, self.port = host, free_port(host)
        self.uri, self.folder = f"http://{host}:{self.port}", folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        line = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            f"sqlite:///{self.folder}/server.db",
        ]
        line += [
            "--artifacts-destination",
            str(self.folder / "kept"),
            "--serve-artifacts",
            "--workers",
            "1",
            "--host",
            self.host,
            "--port",
            str(self.port),
        ]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            line,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(240):
            with suppress(BadInput):
                check_reachable(Store(self.uri, ""))
                return
            time.sleep(0.5)
        pytest.fail("the server did not start")

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("comes_back", [True, False], ids=["for a while", "for good"])
def test_a_tracking_server_that_is_killed_in_mid_sweep(elsewhere: Path, comes_back: bool) -> None:
    """Away for a while: all is stored in the end. Away for good: exit 1, and the next command
    sends. Equal bytes either way.
    """
    file = space(elsewhere, rounds=150)
    server = Server(elsewhere)
    server.start()
    line = [
        sys.executable,
        "-m",
        "backstop.platform.cli",
        "sweep",
        file,
        "--store",
        "s",
        "--device",
        "cpu",
        "--max-concurrent",
        "1",
    ]
    environment = os.environ | {"MLFLOW_TRACKING_URI": server.uri, "BACKSTOP_PATIENCE": "60"}
    try:
        with Path("log").open("w") as log:
            sweep = subprocess.Popen(line, env=environment, stdout=log, stderr=log)
            until = time.monotonic() + 240
            while time.monotonic() < until and not list(Path("kept").rglob("model.safetensors")):
                time.sleep(0.3)
            server.stop()
            assert sweep.poll() is None, Path("log").read_text()
            if comes_back:
                while "trying for up to 60 s" not in Path("log").read_text():
                    assert sweep.poll() is None, Path("log").read_text()
                    time.sleep(0.5)
                time.sleep(20)  # the rest of the minute is for its start
                assert "leaderboard" not in Path("log").read_text()
                server.start()
            assert sweep.wait(timeout=400) == (0 if comes_back else 1), Path("log").read_text()
        told = Path("log").read_text()
        assert "Traceback" not in told
        if not comes_back:
            assert (
                "trained but not stored" in told
                and "no leaderboard now" in told
                and "6/6 done" not in told
            )
            assert list(Path("s/checkpoints").glob("*.pt"))
            server.start()
            again = command(
                "sweep", file, "--store", "s", "--device", "cpu", MLFLOW_TRACKING_URI=server.uri
            )
            assert again.returncode == 0, again.stderr
            assert "that waited" in again.stderr and "Ray" not in again.stderr
        assert not list(Path("s/checkpoints").glob("*.pt"))
    finally:
        server.stop()
    assert board("s") == by_hand.whole(Path(file).read_text()).board


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_old_one(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = planned(space(elsewhere))[0]
    experiment = Experiment(spec, elsewhere / "data", "cpu")
    checkpoint = Checkpoint(Path("c"), spec.id)
    checkpoint.save(experiment.saved([]))
    file = Path("c", f"{spec.id}.pt")
    before = file.read_bytes()

    def full(part: Path, content: bytes) -> int:
        with part.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(experiment.saved([]))
    assert [path.name for path in Path("c").iterdir()] == [checkpoint.path.name]
    assert file.read_bytes() == before


# -- a finished run is never written to


def points(store: Store, run_id: str) -> list[Any]:
    import sqlite3

    file = database_file(store)
    assert file is not None
    with sqlite3.connect(file) as connection:
        return [
            list(connection.execute(f"SELECT * FROM {name} WHERE run_uuid = ?", [run_id]))
            for name in ("metrics", "params", "tags")
        ]


def test_a_spec_that_is_finished_is_not_run_again(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["run", *RUN, "--attack", "badnets", "--json"]
    assert cli.main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    place = locate_store(Path("backstop-store"))
    before = points(place, first["run_id"])
    monkeypatch.setattr(Experiment, "round", lambda _: pytest.fail("it is finished"))
    assert cli.main([*arguments, "--save", "model.safetensors"]) == 0
    out, messages = capsys.readouterr()
    again = json.loads(out)
    assert {key: again[key] for key in again if key != "timing"} == {
        key: first[key] for key in first if key != "timing"
    }
    assert set(again["timing"]) == set(first["timing"])
    assert "finished already: experiment 'runs'" in messages and first["run_id"] in messages
    assert Path("model.safetensors").stat().st_size > 1000
    assert points(place, first["run_id"]) == before


def made(number: int, **metrics: float) -> Record:
    return Record("", number, {f"round/{name}": value for name, value in metrics.items()})


def log(
    place: Store, experiment: str, spec: Spec, records: list[Record], made_by: Origin = HERE
) -> Log:
    found = Log(place, experiment, spec, origin=made_by)
    for record in records:
        found.log(record)
    return found


def test_figures_that_differ_from_a_finished_run_are_a_finding(elsewhere: Path) -> None:
    """Two processes at once, of which one computed something else. Neither run is a mixture."""
    place, spec = locate_store(Path("s")), Spec(rounds=2)
    experiment = open_experiment(place, "e")
    ours = [
        made(0, clean_accuracy=0.5, train_loss=0.75),
        made(1, clean_accuracy=0.875, train_loss=0.5),
    ]
    theirs = [
        made(0, clean_accuracy=0.5, train_loss=1.0),
        made(1, clean_accuracy=0.75, train_loss=0.625),
    ]
    slow = log(place, experiment, spec, theirs[:1])
    assert slow.flush()  # both write into the unfinished run of the spec
    quick = log(place, experiment, spec, ours)
    assert quick.finish(final(ours))
    before = points(place, str(quick.run_id))
    slow.log(theirs[1])
    assert slow.flush()
    assert slow.finish(final(theirs))
    assert "final/clean_accuracy 0.875 there, 0.75 here" in slow.finding
    assert slow.finish(final(theirs)) and slow.fail("too late")
    assert points(place, str(quick.run_id)) == before
    (run,) = read_runs(place, "e")
    assert (run.run_id, run.metrics) == (quick.run_id, final(ours))
    assert slow.run_id != quick.run_id
    kept = mlflow_client(place.uri).get_run(str(slow.run_id))
    assert (kept.data.tags["backstop.kind"], kept.info.status) == ("dissent", "FINISHED")
    assert {key: kept.data.metrics[key] for key in final(theirs)} == final(theirs)
    same = log(place, experiment, spec, ours)
    assert same.finish(final(ours)) and same.finding == "" and same.run_id == quick.run_id
    assert points(place, str(quick.run_id)) == before
    assert len(mlflow_client(place.uri).search_runs([experiment])) == 2


def test_runs_that_are_read_share_the_texts_that_they_have_in_common(elsewhere: Path) -> None:
    """Thousands are held at once."""
    place, records = locate_store(Path("s")), [made(0, clean_accuracy=0.5)]
    experiment = open_experiment(place, "e")
    origin = HERE._replace(code={"model mlp": "0" * 64})
    for seed in (0, 1):
        spec = Spec(rounds=1, seed=seed)
        assert log(place, experiment, spec, records, origin).finish(final(records))
    first, second = read_runs(place, "e")
    assert first.spec["seed"] != second.spec["seed"]
    assert len(first.spec) > 20 and first.metrics and first.code
    for one, other in zip(common_texts(first), common_texts(second), strict=True):
        assert one is other


def common_texts(run: Run) -> list[str]:
    named = [*run.spec, *run.metrics, *run.code, *run.code.values()]
    return [*named, run.spec["model"]["name"], *run.spec["model"], run.fingerprint, run.data]


@pytest.mark.parametrize(
    "other",
    [
        HERE._replace(fingerprint="gpu"),
        HERE._replace(data="f" * 16),
        HERE._replace(code={"defense median": "abcdef"}),
    ],
    ids=["versions", "data", "code"],
)
def test_an_unfinished_run_of_another_origin_is_not_gone_on_with(
    elsewhere: Path, other: Origin
) -> None:
    """MLflow keeps the larger of two values of a round, so that a mixture would be neither's."""
    place, spec = locate_store(Path("s")), Spec(rounds=2)
    experiment = open_experiment(place, "e")
    one = log(place, experiment, spec, [made(0, clean_accuracy=0.75)])
    assert one.fail("ValueError: no luck")
    records = [made(0, clean_accuracy=0.5), made(1, clean_accuracy=0.625)]
    two = log(place, experiment, spec, records, other)
    assert two.finish(final(records))
    assert two.run_id != one.run_id
    (run,) = with_curves(place, read_runs(place, "e"), [spec.id], ["round/clean_accuracy"])
    assert (run.origin, run.curves["round/clean_accuracy"]) == (other, [(0, 0.5), (1, 0.625)])
    late = log(place, experiment, spec, records)
    assert late.finish(final(records))
    assert "with the same figures" in late.finding and "there" not in late.finding
    assert late.run_id == two.run_id


def test_a_sweep_of_other_versions_is_refused_before_it_trains(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = space(elsewhere)
    place = locate_store(Path("s"))
    experiment = open_experiment(place, "little")
    records = [made(0, clean_accuracy=0.5)]
    assert log(place, experiment, planned(file)[0], records, Origin("torch 1.0")).finish(
        final(records)
    )
    assert cli.main(["sweep", file, "--store", "s", "--device", "cpu"]) == 2
    message = capsys.readouterr().err
    assert (
        message.count("\n") == 1
        and "holds runs of torch 1.0" in message
        and "--mix-fingerprints" in message
    )


# -- other data are refused


def test_data_that_have_changed_are_refused(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table(elsewhere)
    assert cli.main(TABLE) == 0
    assert cli.main(["leaderboard", "--experiment", "runs", "--out", "board"]) == 0
    document = json.loads(Path("board/leaderboard.json").read_text())
    before = document["runs"][0]["data"]
    assert len(before) == 16 and set(document["code"]) == {"dataset table", "model logistic"}
    table(elsewhere, shift=1)
    forget()
    capsys.readouterr()
    monkeypatch.setattr(Experiment, "round", lambda _: pytest.fail("refused before training"))
    assert cli.main(TABLE) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        "dataset table(" in message
        and f"digest {before} then" in message
        and "--experiment" in message
    )
    assert cli.main(["verify", "board/leaderboard.json"]) == 1
    assert f"has changed: digest {before} then" in capsys.readouterr().out
    table(elsewhere)
    forget()
    assert cli.main(TABLE) == 0


def test_a_sweep_does_not_mix_two_versions_of_a_file(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither beside finished runs nor from checkpoints of the old file."""
    table(elsewhere)
    file = space(elsewhere, "table", ', {"path": "t.csv", "label": "y"}', attack="label_flip")
    first, *_ = planned(file)
    place = locate_store(Path("s"))
    experiment = open_experiment(place, "little")
    trained, records = done(first, elsewhere, Path("s/checkpoints"))
    table(elsewhere, shift=1)
    forget()
    assert cli.main(["sweep", file, "--store", "s", "--device", "cpu"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "runs that are not finished have read other data, 1 of them: dataset table(" in message
    assert log(place, experiment, first, records, trained.origin).finish(final(records))
    Checkpoint(Path("s/checkpoints"), first.id).drop()
    assert cli.main(["sweep", file, "--store", "s", "--device", "cpu"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        "experiment 'little' holds runs that have read other data, 1 of them" in message
        and trained.origin.data in message
    )


def test_half_an_experiment_of_other_data_or_versions_begins_anew(elsewhere: Path) -> None:
    table(elsewhere)
    spec = validate(
        Spec(
            dataset=Part("table", {"path": "t.csv", "label": "y"}),
            model=Part("logistic"),
            clients=4,
            per_round=4,
            rounds=3,
            root_size=4,
        )
    )
    half = Experiment(spec, elsewhere / "data", "cpu")
    record = half.round()
    assert record is not None
    checkpoint = Checkpoint(Path("c"), spec.id)
    checkpoint.save(half.saved([record]))
    same = Experiment(spec, elsewhere / "data", "cpu")
    assert same.resume(checkpoint) == [record] and (same.state.round, checkpoint.note) == (1, "")
    table(elsewhere, shift=1)
    forget()
    other = Experiment(spec, elsewhere / "data", "cpu")
    assert other.resume(checkpoint) == [] and other.state.round == 0
    assert "begins anew: rounds 1 to 1 were made with other data" in checkpoint.note


def test_the_digest_is_of_what_was_read(elsewhere: Path) -> None:
    part, folder = Part("table", {"path": "t.csv", "label": "y"}), elsewhere / "data"
    table(elsewhere)
    part = validate(Spec(dataset=part, model=Part("logistic"))).dataset
    first = loading.content(part, folder)
    text = (folder / "t.csv").read_text()
    (folder / "t.csv").write_text(text.replace("\n", "\r\n"))
    forget()
    assert loading.content(part, folder) == first  # the same rows, written otherwise
    assert origin.other_data(first, part, folder) == ""
    table(elsewhere, shift=1)
    forget()
    assert origin.other_data(first, part, folder).startswith("dataset table(")
    assert origin.other_data("", part, folder) == ""  # a run of an earlier version: not known


def test_runs_of_two_versions_of_a_file_are_not_ranked_together() -> None:
    from tests.boards import runs

    half = [
        item._replace(data="a" * 16 if place % 2 else "b" * 16) for place, item in enumerate(runs())
    ]
    with pytest.raises(
        BadInput,
        match=r"different data under one name: digits .*aaaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbb",
    ):
        ranking.build_document(half, "x")
    assert ranking.build_document(half, "x", mix=True)["rows"]
    edge = [
        item._replace(data="a" * 16 + ("+" + "c" * 16) * (place % 2))
        for place, item in enumerate(runs())
    ]
    assert ranking.build_document(edge, "x")["rows"]  # edge cases are read by some attacks only


# -- changed code is said


METHOD = '''
"""Ours: the mean.{words}"""

from backstop.platform.contract import Defense, Updates, stateless

VERSION = 1


def ours() -> Defense:
    """The mean."""{comment}
    return stateless(lambda updates: updates._replace(rows=updates.rows * {factor}))
'''


@pytest.fixture
def theirs(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of another package's plug-in, the defense ``ours``."""
    folder = elsewhere / "plugins"
    info = folder / "theirs-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[backstop.defenses]\nours = ours:ours\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it may be written twice in a second
    yield folder / "ours.py"
    forget_plugins()


def forget_plugins() -> None:
    """What a new process would not know of plug-ins."""
    for known in (plugins.sources, plugins._find, plugins._describe, plugins.digest):
        known.cache_clear()
    sys.modules.pop("ours", None)


def test_code_that_has_changed_under_its_version_is_said(
    theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another package's plug-in too. What only a reader sees is no change."""

    def warnings(factor: float, words: str = "", comment: str = "") -> list[str]:
        theirs.write_text(METHOD.format(factor=factor, words=words, comment=comment))
        forget_plugins()
        assert cli.main(["run", *RUN, "--defense", "ours"]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "warning" in line]

    assert warnings(1.0) == []
    assert warnings(1.0, words=" Better explained.", comment="  # a remark") == []
    (line,) = warnings(0.5)
    changed = "the code of defense ours has changed since 1 stored run with the same VERSION"
    assert changed in line


def test_verify_says_whether_the_data_or_the_code_changed(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", *RUN, "--attack", "badnets", "--defense", "median"]) == 0
    assert cli.main(["leaderboard", "--experiment", "runs", "--out", "board"]) == 0
    file = Path("board/leaderboard.json")
    text = file.read_text()
    document = json.loads(text)
    assert cli.main(["verify", str(file)]) == 0
    document["runs"][0]["metrics"]["final/clean_accuracy"] += 0.25
    capsys.readouterr()
    told = {}
    for name, change in (
        ("figures", {}),
        ("code", {"code": document["code"] | {"defense median": "0" * 12}}),
        ("versions", {"fingerprint": "torch 1.0"}),
    ):
        file.write_text(json.dumps(document | change))
        assert cli.main(["verify", str(file), "--sample", "1"]) == 1
        told[name] = capsys.readouterr().out
    assert all("the data are the same; " in out for out in told.values())
    assert "so are its plug-ins and versions" in told["figures"]
    assert "the code of defense median has changed" in told["code"]
    assert "it was made with torch 1.0, this is" in told["versions"]
