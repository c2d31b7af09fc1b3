"""A tracking server behind a proxy: either can be away for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.chaos.proxy import Proxy
from tests.test_stored import Server

DATABASE = "server/server.db"  # in the sweep's folder


class Tracking(NamedTuple):
    """MLflow's own server on SQLite, and the way to it."""

    server: Server
    proxy: Proxy


@contextmanager
def tracking(folder: Path) -> Iterator[Tracking]:
    """A server that keeps its database in the sweep's folder."""
    home = folder / Path(DATABASE).parent
    home.mkdir()
    server = Server(home)
    server.start()
    try:
        proxy = Proxy(server.port)
        try:
            yield Tracking(server, proxy)
        finally:
            proxy.close()
    finally:
        server.stop()
