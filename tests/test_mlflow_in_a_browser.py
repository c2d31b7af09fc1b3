"""MLflow's own page, opened by the address that ``backstop ui`` prints: columns and charts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backstop.platform.contract import Record
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.log import Log
from backstop.platform.results.tracking.store import locate_store
from backstop.platform.results.tracking.titles import run_title, varied_keys
from backstop.platform.rounds.finals import final
from backstop.platform.rounds.origin import Origin
from backstop.platform.specs.change import grid
from tests.boards import BASE
from tests.browser import Tab, empty_tab, needs_browser, open_browser

pytestmark = [needs_browser, pytest.mark.slow]
PATIENCE = 300.0  # seconds until the server and the page are there, on a busy machine
SPECS = grid(
    BASE,
    attack=[f"badnets+model_replacement(strength={strength})" for strength in (1, 3)],
    defense=["median", "krum(f=4)"],
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with runs of three rounds that nobody has trained."""
    store = locate_store(tmp_path)
    experiment = open_experiment(store, "demo")
    for number, spec in enumerate(SPECS):
        records = [
            Record(
                spec.id,
                step,
                {
                    "round/clean_accuracy": 0.5 + step / 8,
                    "round/attack_success_rate": number / 4,
                },
                {},
            )
            for step in range(3)
        ]
        log = Log(
            store,
            experiment,
            spec,
            origin=Origin("cpu", "0123456789abcdef"),
            title=run_title(spec, varied_keys(SPECS)),
        )
        for record in records:
            log.log(record)
        assert log.finish(final(records))
    return tmp_path


@contextmanager
def user_interface(folder: Path) -> Iterator[list[str]]:
    """``backstop ui`` on a store; the addresses that it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "backstop.platform.cli",
        "ui",
        "--store",
        str(folder),
        "--port",
        str(port),
    ]
    errors = folder / "ui.txt"
    with errors.open("w") as file:
        process = subprocess.Popen(command, stderr=file, env={**os.environ})
    try:
        wait(lambda: "charts: " in errors.read_text())
        words = errors.read_text().split()
        wait(lambda: listens(port))
        yield [word for word in words if "viewStateShareKey" in word]
    finally:
        process.send_signal(2)
        process.wait(PATIENCE)


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def wait(done: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.2)


def opened(tab: Tab, address: str) -> None:
    tab.ask("Page.navigate", url="about:blank")
    tab.ask("Page.navigate", url=address)


def text_of(tab: Tab) -> str:
    return str(tab.value("document.body ? document.body.innerText : ''"))


def test_the_address_opens_columns_and_charts(folder: Path, tmp_path: Path) -> None:
    with user_interface(folder) as (columns, charts), open_browser(tmp_path / "profile") as browser:
        tab = empty_tab(browser, 1900, 1000)
        opened(tab, columns)
        wait(lambda: "4 matching runs" in text_of(tab).replace("\n", " "))
        wait(lambda: "defense.name" in text_of(tab))
        text = text_of(tab)
        assert {"attack.name", "final/clean_accuracy", "final/attack_success_rate"} <= set(
            text.splitlines()
        )
        assert "krum · strength 3.0" in text
        assert "digits" in text
        opened(tab, charts)
        plots = "document.querySelectorAll('.js-plotly-plot').length"
        wait(lambda: tab.value(plots) >= 2)
        assert "round/attack_success_rate" in text_of(tab)
