"""The harness itself: it hits nobody else, draws the same list again, and sees what is wrong."""

from __future__ import annotations

import http.client
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.chaos import aftermath
from tests.chaos.aftermath import Before, Undisturbed
from tests.chaos.command import Command, temporary_folder
from tests.chaos.disturbances import KINDS, PROCESSES, WEIGHTS, drawn
from tests.chaos.processes import Process, kind_of, processes_of, send
from tests.chaos.proxy import REFUSED, RESET, UNAVAILABLE, Proxy
from tests.chaos.tally import Tally

SLEEPS = [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)"]
CHILD = """
import os, subprocess, sys, time
environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
print(subprocess.Popen(["sleep", "600"], env=environment).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


def test_processes_of_a_sweep_are_known_by_any_of_their_marks_and_no_others_are_hit(
    temporary: Path,
) -> None:
    other = temporary.with_name(temporary.name + "0")
    log = temporary / "log"
    with (
        subprocess.Popen(SLEEPS, stdout=-1, env=os.environ | {"TMPDIR": str(temporary)}) as by_name,
        subprocess.Popen([*SLEEPS, f"--log={temporary}/x"], stdout=-1) as by_command,
        log.open("w") as stream,
        subprocess.Popen(SLEEPS, stdout=stream) as by_file,
        subprocess.Popen(SLEEPS, stdout=-1, env=os.environ | {"TMPDIR": str(other)}) as stranger,
        subprocess.Popen([*SLEEPS, f"--log={other}/x"], stdout=-1) as another,
    ):
        for process in (by_name, by_command, stranger, another):
            assert process.stdout is not None
            process.stdout.readline()  # it has its own command and environment by now
        there = [by_name, by_command, by_file]
        assert {found.pid for found in processes_of(temporary)} == {one.pid for one in there}
        assert not send(Process(stranger.pid, "other"), signal.SIGKILL, temporary)
        for found in processes_of(temporary):
            assert send(found, signal.SIGKILL, temporary)
        assert [process.wait(30) for process in there] == [-signal.SIGKILL] * 3
        assert processes_of(temporary) == []
        for process in (stranger, another):
            assert process.poll() is None
            process.kill()


def test_a_child_belongs_to_its_parents_sweep(temporary: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert {found.pid for found in processes_of(temporary)} == {parent.pid, child}
        for found in processes_of(temporary):
            send(found, signal.SIGKILL, temporary)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["ray::ResourceTrainable.train"], "trial"),
        (["ray::Worker"], "client actor"),
        (["x", "/ray/_private/log_monitor.py"], "log monitor"),
        (["x", "/ray/autoscaler/_private/monitor.py"], "autoscaler"),
        (["/core/src/ray/raylet/raylet", "--python_worker_command=default_worker.py"], "raylet"),
        (["/core/src/ray/gcs/gcs_server", "--log_dir=x"], "GCS"),
        (["x"], "other"),
    ],
)
def test_a_process_is_known_by_its_command(words: list[str], kind: str) -> None:
    code = "print(flush=True); import time; time.sleep(600)"
    line = [words[0], "-c", code, *words[1:]]
    with subprocess.Popen(line, executable=sys.executable, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert kind_of(process.pid) == kind
        process.kill()


def test_the_list_follows_from_the_seed_and_has_every_kind() -> None:
    first = list(drawn(7, [*PROCESSES], 60))
    assert first == list(drawn(7, [*PROCESSES], 60))
    assert first != list(drawn(8, [*PROCESSES], 60))
    count = len(PROCESSES)
    assert {one.kind for one in first[:count]} == {one.kind for one in first[count : 2 * count]}
    assert {one.kind for one in first} == set(PROCESSES)
    assert {one.stage for one in first} == set(WEIGHTS)


class Answers(BaseHTTPRequestHandler):
    """Answers every question alike."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        made = Proxy(server.server_port)
        yield made
        made.close()
        server.shutdown()


def ask(proxy: Proxy) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as connection:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_a_proxy_passes_on_refuses_resets_and_answers_503(proxy: Proxy) -> None:
    assert ask(proxy) == (200, b"here")
    for how, error in ((REFUSED, ConnectionRefusedError), (RESET, ConnectionResetError)):
        proxy.cut(how)
        with pytest.raises(error):
            ask(proxy)
        proxy.mend()
        assert ask(proxy) == (200, b"here")
    proxy.cut(UNAVAILABLE)
    assert ask(proxy) == (503, b"")
    proxy.mend()
    assert ask(proxy) == (200, b"here")


def test_a_connection_that_is_open_is_cut(proxy: Proxy) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as connection:
        connection.connect()
        while not proxy.connections:
            pass
        proxy.cut(UNAVAILABLE)
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            connection.request("GET", "/")
            connection.getresponse()


@pytest.fixture
def ended(tmp_path: Path, temporary: Path) -> Command:
    """A sweep that has ended as it should, with two runs."""
    command = Command(tmp_path, temporary)
    command.codes.append(0)
    command.log.write_text("")
    (command.store / "leaderboards" / "little").mkdir(parents=True)
    (command.store / "leaderboards" / "little" / "leaderboard.json").write_text("{}")
    with closing(sqlite3.connect(command.database)) as made:
        made.execute("CREATE TABLE runs (run_uuid, status)")
        made.execute("CREATE TABLE tags (run_uuid, key, value)")
        made.commit()
    for spec_id in ("a", "b"):
        add_run(command, spec_id, "FINISHED")
    return command


def add_run(command: Command, spec_id: str, status: str, kind: str = "trial") -> None:
    with closing(sqlite3.connect(command.database)) as store:
        name = f"{spec_id}{status}{kind}"
        store.execute("INSERT INTO runs VALUES (?, ?)", (name, status))
        store.execute("INSERT INTO tags VALUES (?, 'backstop.kind', ?)", (name, kind))
        store.execute("INSERT INTO tags VALUES (?, 'backstop.id', ?)", (name, spec_id))
        store.commit()


WHOLE = Undisturbed(b"{}", ["a", "b"])


def test_a_sweep_that_has_ended_as_it_should_passes(ended: Command) -> None:
    aftermath.check(ended, Before.now(ended), WHOLE)


@pytest.mark.parametrize(
    "whole", [Undisturbed(b"{ }", ["a", "b"]), Undisturbed(b"{}", ["a", "b", "c"])]
)
def test_other_bytes_and_lost_runs_are_seen(ended: Command, whole: Undisturbed) -> None:
    with pytest.raises(AssertionError):
        aftermath.check(ended, Before.now(ended), whole)


@pytest.mark.parametrize(
    ("spec_id", "status", "kind"),
    [("a", "KILLED", "trial"), ("p", "RUNNING", "sweep"), ("a", "FINISHED", "dissent")],
)
def test_doubled_running_and_dissenting_runs_are_seen(
    ended: Command, spec_id: str, status: str, kind: str
) -> None:
    add_run(ended, spec_id, status, kind)
    with pytest.raises(AssertionError):
        aftermath.check(ended, Before.now(ended), WHOLE)


def test_what_is_left_behind_is_seen(ended: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Before.now(ended)
    assert list(aftermath.left_behind(ended, before)) == []
    left = [
        ended.temporary / "ray" / "session_1",
        ended.temporary / "file",
        ended.store / "ray" / "record",
        ended.store / "checkpoints" / "a.pt",
        ended.store / "mlflow.db-wal",
        ended.memory / f"chaos-{os.getpid()}",
    ]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    try:
        assert set(aftermath.left_behind(ended, before)) == set(left)
        with left[-1].open():  # this process uses it
            assert left[-1] not in set(aftermath.left_behind(ended, before))
        with pytest.raises(AssertionError):
            aftermath.check(ended, before, WHOLE)
    finally:
        left[-1].unlink()


def test_a_process_that_is_left_is_seen(ended: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath, "ENDS_WITHIN_S", 0.0)
    with subprocess.Popen(SLEEPS, stdout=-1, env=ended.environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(AssertionError, match="processes are left"):
            aftermath.check(ended, Before.now(ended), WHOLE)
        process.kill()


def test_the_table_has_kinds_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()
    happened = list(drawn(0, list(KINDS), 2 * len(KINDS)))
    tally.add("one", 3, happened)
    monkeypatch.setenv("BACKSTOP_CHAOS_TABLE", str(tmp_path / "table"))
    tally.write()
    text = (tmp_path / "table").read_text()
    assert all(f"| {kind} | 2 |" in text for kind in KINDS)
    assert f"| all of 1 sweeps, 3 commands | {2 * len(KINDS)} |" in text
