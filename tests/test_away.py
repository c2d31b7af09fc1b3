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

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.runs import read_runs
from backstop.platform.results.tracking.store import Store, mlflow_client
from backstop.platform.rounds.checkpoint import saved_ids
from backstop.platform.sweeps import waiting
from backstop.platform.sweeps.backend import Observer, Task
from backstop.platform.sweeps.conduct import Site, shortfalls
from backstop.platform.sweeps.queues import Finals, Queue
from tests.test_backend import BASE, OneByOne, conducted
from tests.test_stored import Server

pytestmark = pytest.mark.xdist_group("ray")
SPECS = [BASE.replace(seed=seed) for seed in range(3)]


class Proxy:
    """Stands before a server and answers 503 when told to."""

    def __init__(self, server: Server) -> None:
        self.away = False
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.away:
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


@pytest.mark.parametrize("given", ["soon", "-1", "inf", "nan"])
def test_a_patience_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("BACKSTOP_PATIENCE", given)
    with pytest.raises(BadInput, match=f"BACKSTOP_PATIENCE='{given}' is not allowed; seconds"):
        waiting.patience(Store("http://127.0.0.1:1", ""))
