"""A tracking server that answers 503 in the middle of a sweep: nothing is lost or doubled."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread, Timer
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    TEMPORARILY_UNAVAILABLE,
)

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.runs import read_runs
from backstop.platform.results.tracking.store import (
    Away,
    Store,
    locate_store,
    mlflow_client,
    refusing,
)
from backstop.platform.rounds.checkpoint import saved_ids
from backstop.platform.sweeps import waiting
from backstop.platform.sweeps.backend import Observer, Task
from backstop.platform.sweeps.conduct import Site, shortfalls
from backstop.platform.sweeps.queues import Finals, Queue
from backstop.platform.sweeps.waiting import Patience
from tests.test_backend import BASE, OneByOne, conducted
from tests.test_stored import Server

pytestmark = pytest.mark.xdist_group("ray")
SPECS = [BASE.replace(seed=seed) for seed in range(3)]


class Proxy:
    """Stands before a server and answers 503 when told to, for good or to so many requests."""

    def __init__(self, server: Server) -> None:
        self.away = False
        self.refusals = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.away or proxy.refusals > 0:
                    proxy.refusals -= 1
                    self.send_error(503)
                    return
                there = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
                there.request(self.command, self.path, body, dict(self.headers))
                found = there.getresponse()
                content = found.read()
                self.send_response(found.status)
                self.send_header("Content-Type", found.getheader("Content-Type") or "text/plain")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                there.close()

            def log_message(self, *args: Any) -> None:
                pass

        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.answer)

        self.listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.listening.serve_forever, daemon=True).start()
        self.uri = f"http://127.0.0.1:{self.listening.server_address[1]}"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    proxy = Proxy(server)
    yield proxy
    proxy.listening.shutdown()
    proxy.listening.server_close()
    server.stop()


class GoesAway(OneByOne):
    """The server goes away once the first run is stored."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def run(self, queue: Queue, task: Task, observer: Observer) -> None:
        def ended(spec: Any, finals: Finals | None, stored: bool) -> None:
            observer.ended(spec, finals, stored)
            self.proxy.away = True

        watched: Any = SimpleNamespace(
            started=observer.started, result=observer.result, ended=ended
        )
        super().run(queue, task, watched)


def statuses(store: Store, name: str) -> list[tuple[str, str]]:
    """Kind and status of every run in the experiment, doubled ones among them."""
    client = mlflow_client(store.uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return sorted((run.data.tags["backstop.kind"], run.info.status) for run in runs)


@pytest.mark.slow  # a server
@pytest.mark.timeout(600)
def test_a_server_that_answers_503_for_a_while_gets_everything_once(
    tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTOP_PATIENCE", "120")
    monkeypatch.setattr(waiting, "LATE", 2.0)
    store = Store(proxy.uri, "")
    site = Site(store, tmp_path, "for_a_while", tmp_path / "data", "cpu")

    class ComesBack(GoesAway):
        def run(self, queue: Queue, task: Task, observer: Observer) -> None:
            super().run(queue, task, observer)
            assert len(queue.unstored) == 2
            Timer(5, lambda: setattr(proxy, "away", False)).start()

    queue, seen, said = conducted(site, ComesBack(proxy), SPECS)
    assert seen.ends == [True, False, False], "what is not stored is not called stored"
    assert "2 runs not stored yet" in said[-2] and "2 runs stored now" in said[-1]
    assert shortfalls(queue, site) == []
    assert statuses(store, "for_a_while") == [("sweep", "FINISHED"), *[("trial", "FINISHED")] * 3]
    assert saved_ids(site.checkpoints) == set()


@pytest.mark.slow  # a server
@pytest.mark.timeout(600)
def test_a_server_that_stays_away_leaves_everything_to_the_same_command(
    tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTOP_PATIENCE", "1")
    store = Store(proxy.uri, "")
    site = Site(store, tmp_path, "for_good", tmp_path / "data", "cpu")
    queue, _, _ = conducted(site, GoesAway(proxy), SPECS)
    (line,) = shortfalls(queue, site)
    assert line.startswith("2 runs trained but not stored: ") and "503" in line
    assert not waiting.answers(store)
    proxy.away = False
    monkeypatch.setattr(OneByOne, "run", lambda *_: pytest.fail("all is trained"))
    again, _, said = conducted(site, OneByOne(), SPECS)
    assert any("stored 2 runs that waited" in line for line in said)
    assert shortfalls(again, site) == []
    assert len(read_runs(store, "for_good")) == 3
    assert statuses(store, "for_good") == [("sweep", "FINISHED"), *[("trial", "FINISHED")] * 3]


@pytest.mark.slow  # a server
@pytest.mark.timeout(600)
def test_a_sweep_waits_for_its_server_at_both_ends(
    tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is away when the store is opened, and when all is stored and the sweep's run is closed."""
    monkeypatch.setenv("BACKSTOP_PATIENCE", "120")
    monkeypatch.setattr(waiting, "LATE", 2.0)

    class GoesLast(OneByOne):
        def run(self, queue: Queue, task: Task, observer: Observer) -> None:
            super().run(queue, task, observer)
            proxy.refusals = 12

    site = Site(Store(proxy.uri, ""), tmp_path, "both_ends", tmp_path / "data", "cpu")
    proxy.refusals = 6
    queue, _, said = conducted(site, GoesLast(), SPECS)
    assert shortfalls(queue, site) == []
    waits = [line for line in said if "waiting for the tracking server for up to 120 s" in line]
    assert len(waits) == 2 and "503" in waits[0]
    held = statuses(site.store, "both_ends")
    assert held == [("sweep", "FINISHED"), *[("trial", "FINISHED")] * 3]


SERVER = Store("http://127.0.0.1:1", "")


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> tuple[Patience, list[str]]:
    """A patience of .2 s, and what it says."""
    monkeypatch.setenv("BACKSTOP_PATIENCE", "0.2")
    monkeypatch.setattr(waiting, "SOON", 0.01)
    said: list[str] = []
    return Patience(SERVER, said.append), said


class Tried:
    """Fails so many times with an error of MLflow's, then answers."""

    def __init__(self, failures: int, code: int) -> None:
        self.failures, self.code, self.calls = failures, code, 0

    def __call__(self) -> str:
        self.calls += 1
        with refusing(SERVER):
            if self.calls <= self.failures:
                raise MlflowException("no luck", error_code=self.code)
        return "there"


@pytest.mark.parametrize("code", [TEMPORARILY_UNAVAILABLE, INTERNAL_ERROR, BAD_REQUEST])
def test_a_server_that_is_away_is_asked_again(
    patience: tuple[Patience, list[str]], code: int
) -> None:
    patient, said = patience
    assert patient.insist(Tried(3, code)) == "there"
    (line,) = said
    assert line.startswith("backstop: waiting for the tracking server for up to 0 s")
    assert SERVER.uri in line and "no luck" in line


def test_what_waiting_does_not_mend_is_raised_at_once(
    patience: tuple[Patience, list[str]],
) -> None:
    patient, said = patience
    refused = Tried(1, INVALID_PARAMETER_VALUE)
    with pytest.raises(BadInput, match="no luck"):
        patient.insist(refused)
    assert (refused.calls, said) == (1, [])


def test_several_calls_wait_no_longer_than_one(patience: tuple[Patience, list[str]]) -> None:
    patient, said = patience
    first, second = Tried(10**6, INTERNAL_ERROR), Tried(10**6, INTERNAL_ERROR)
    for tried in (first, second):
        with pytest.raises(Away):
            patient.insist(tried)
    assert (first.calls > 2, second.calls, len(said)) == (True, 1, 1)


def test_a_file_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as raised, refusing(locate_store(tmp_path)):
        raise MlflowException("locked", error_code=TEMPORARILY_UNAVAILABLE)
    assert not isinstance(raised.value, Away)


@pytest.mark.parametrize("given", ["soon", "-1", "inf", "nan"])
def test_a_patience_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("BACKSTOP_PATIENCE", given)
    with pytest.raises(BadInput, match=f"BACKSTOP_PATIENCE='{given}' is not allowed; seconds"):
        waiting.patience(Store("http://127.0.0.1:1", ""))
