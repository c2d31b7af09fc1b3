"""A process of its own that writes to the store: the same store, errors, and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair
from typing import Any

import pytest

from backstop.platform import cli
from backstop.platform.params import BadInput
from backstop.platform.results.tracking import scribe as writing
from backstop.platform.results.tracking.experiments import check_name, open_experiment
from backstop.platform.results.tracking.runs import read_runs, run_records
from backstop.platform.results.tracking.scribe import Apart, Here, hired
from backstop.platform.results.tracking.store import Away, Store, locate_store

FEDERATION = "--model logistic --clients 10 --per-round 5 --rounds 2 --attack badnets"
RUN = ["run", *FEDERATION.split()]
# A command as a terminal starts it, which has imported nothing; what is in braces comes first.
COMMAND = """
import sys
from backstop.platform import cli
from backstop.platform.results.tracking import scribe
{}
sys.exit(cli.main(sys.argv[1:]))
"""


def started(first: str, folder: Path) -> subprocess.Popen[str]:
    """A run in a process of its own, with its store in the folder."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(first), *RUN, "--store", "store", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def without_times(store: Store) -> Any:
    """What a store holds of its runs, without ids of MLflow and what differs from run to run."""
    kept = []
    for run in read_runs(store, "runs", status=None):
        records = [(record.round, record.metrics) for record in run_records(store, run)]
        kept.append((run.id, run.status, run.metrics, run.spec, run.data, run.code, records))
    return kept


def ended(process: int) -> bool:
    """Whether a process ends within some seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def printed_without_mlflow(folder: Path) -> Any:
    """What a run prints of which the process that computes has not imported MLflow."""
    told = "import atexit; atexit.register(lambda: print('mlflow' in sys.modules, file=sys.stderr))"
    apart = started(told, folder)
    printed, messages = apart.communicate(timeout=120)
    assert apart.returncode == 0, messages
    assert messages.splitlines()[-1] == "False"
    return json.loads(printed)


def test_a_run_is_stored_as_by_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = printed_without_mlflow(tmp_path)
    again = printed_without_mlflow(tmp_path)
    assert (again["run_id"], again["rounds"]) == (document["run_id"], document["rounds"])
    monkeypatch.chdir(tmp_path)
    assert cli.main([*RUN, "--store", "here", "--json"]) == 0
    same = json.loads(capsys.readouterr().out)
    assert document["final"] == same["final"] and document["rounds"] == same["rounds"]
    stores = [locate_store(tmp_path / folder) for folder in ("store", "here")]
    assert without_times(stores[0]) == without_times(stores[1]) != []
    models = list(tmp_path.rglob("model.safetensors"))
    assert len(models) == 2 and models[0].read_bytes() == models[1].read_bytes()
    assert document["run_id"] == read_runs(stores[0], "runs")[0].run_id
    assert not list((tmp_path / "store" / "checkpoints").glob("*"))


def test_a_run_outlives_the_process_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = (
        "from backstop.platform.experiment import Experiment\n"
        "first, apart = Experiment.round, []\n"
        "begin = scribe.Apart.__init__\n"
        "scribe.Apart.__init__ = lambda self, store: (apart.append(self), begin(self, store))[1]\n"
        "Experiment.round = lambda self: (apart[0].process.kill(), first(self))[1]\n"
    )
    process = started(killed, tmp_path)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 1, messages
    assert "trained but not stored" in messages and "Traceback" not in messages
    assert "the process that writes to the store has ended; it is kept in" in messages
    monkeypatch.chdir(tmp_path)
    assert cli.main([*RUN, "--store", "store"]) == 0
    assert "round 1" not in capsys.readouterr().err  # what was kept is sent, nothing is trained
    assert [run.status for run in read_runs(locate_store(tmp_path / "store"), "runs")] == [
        "FINISHED"
    ]


def test_nobody_is_left_behind(tmp_path: Path) -> None:
    told = (
        "begin = scribe.Apart.__init__\n"
        "def named(self, store):\n"
        "    begin(self, store)\n"
        "    print(self.process.pid, file=sys.stderr, flush=True)\n"
        "scribe.Apart.__init__ = named\n"
    )
    for sign in (signal.SIGKILL, signal.SIGTERM):
        process = started(told, tmp_path)
        assert process.stderr is not None
        writer = int(process.stderr.readline())
        assert Path(f"/proc/{writer}").exists()
        process.send_signal(sign)
        process.communicate(timeout=60)
        assert ended(writer)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A place for a store."""
    folder = tmp_path_factory.mktemp("store")
    return Store(f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts"))


@pytest.fixture(scope="module")
def scribe(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    """A process that writes to it, started where a user has a module of a library's name."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "queue.py").write_text("raise ImportError('not the library')\n")
    with chdir(folder):
        process = Apart(store)
    yield process
    process.close()
    assert ended(process.process.pid)


def test_a_function_is_asked_for_elsewhere(scribe: Apart, store: Store) -> None:
    assert scribe.ask(os.getpid) == scribe.process.pid != os.getpid()
    number = scribe.ask(open_experiment, store, "runs")
    with pytest.raises(BadInput, match="experiment name '/' is not allowed"):
        scribe.ask(check_name, "/")
    assert scribe.ask(open_experiment, store, "runs") == number == open_experiment(store, "runs")


def test_an_answer_that_nobody_waited_for_is_passed_over(scribe: Apart) -> None:
    scribe.asked += 1
    scribe.connection.send((scribe.asked, os.getcwd, ()))  # whoever asked was interrupted
    assert scribe.ask(os.getpid) == scribe.process.pid


def test_an_interruption_of_all_processes_is_for_the_one_that_trains(scribe: Apart) -> None:
    assert scribe.ask(os.getpid) == scribe.process.pid  # it is past its imports
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        scribe.process.send_signal(sign)
    assert scribe.ask(os.getpid) == scribe.process.pid


def test_after_half_a_question_nothing_is_asked() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    ours, theirs = socketpair()
    scribe = object.__new__(Apart)
    scribe.connection, scribe.asked = Connection(ours.detach()), 0
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with theirs:
            signal.setitimer(signal.ITIMER_REAL, 0.2, 5)
            with pytest.raises(KeyboardInterrupt):
                scribe.ask(len, bytes(10**7))  # nobody reads it
            with pytest.raises(BadInput, match="has ended"):
                scribe.ask(os.getpid)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_error_keeps_its_kind_on_the_way(scribe: Apart) -> None:
    gone = Store("http://127.0.0.1:9", "")
    with pytest.raises(Away, match=re.escape(f"tracking store {gone.uri}")):
        scribe.ask(open_experiment, gone, "runs")


def test_a_process_that_has_mlflow_writes_itself(store: Store) -> None:
    with hired(store) as writer:
        assert isinstance(writer, Here)
        assert writer.ask(os.getpid) == os.getpid()


def test_where_no_process_can_be_started_this_one_writes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.delitem(sys.modules, "mlflow")
    monkeypatch.setattr(writing, "Popen", refuse)
    with hired(store) as writer:
        assert isinstance(writer, Here)
