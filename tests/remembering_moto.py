"""moto's object store with a memory: ``python remembering_moto.py HOST PORT FOLDER``.

moto keeps its objects in memory, so one that is killed would come back empty, as no object store
does. What changes something is kept in the folder before it is answered, a file for each request,
and is done again before the port opens.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

CHANGES = {"PUT", "POST", "DELETE"}

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Remembering:
    """An application whose changes outlive its process."""

    def __init__(self, application: Application, folder: Path, seed: Callable[[int], None]) -> None:
        """Do again what is kept; ``seed`` begins moto's own draws, so that an upload that was
        begun has the same id.
        """
        self.application = application
        self.seed = seed
        self.folder = folder
        self.one_at_a_time = Lock()
        folder.mkdir(exist_ok=True)
        kept = sorted(folder.glob("*.request"))
        self.count = 0
        for file in kept:
            asked, body = pickle.loads(file.read_bytes())
            self._changed({**asked, **_streams(body)}, lambda *_: None)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer once it is kept."""
        body = _body(environ)
        with self.one_at_a_time:
            if environ["REQUEST_METHOD"] not in CHANGES:
                return list(self.application(environ, start_response))
            file = self.folder / f"{self.count:08d}.request"
            answer = self._changed({**environ, **_streams(body)}, start_response)
            _keep(file, environ, body)
        return answer

    def _changed(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """The answer to a request that may change something."""
        self.seed(self.count)
        self.count += 1
        return list(self.application(environ, start_response))


def _keep(file: Path, environ: dict[str, Any], body: bytes) -> None:
    """Write a request down, whole or not at all."""
    asked = {key: value for key, value in environ.items() if isinstance(value, str)}
    part = file.with_suffix(".part")
    part.write_bytes(pickle.dumps((asked, body)))
    part.rename(file)


def _body(environ: dict[str, Any]) -> bytes:
    """All that was sent, by its length or in chunks."""
    length = environ.get("CONTENT_LENGTH")
    stream = environ["wsgi.input"]
    if length:
        body: bytes = stream.read(int(length))
        return body
    return b"" if "wsgi.input_terminated" not in environ else stream.read()


def _streams(body: bytes) -> dict[str, Any]:
    return {
        "wsgi.input": BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True,
    }


if __name__ == "__main__":
    from moto.moto_api._internal import mock_random
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import run_simple

    os.urandom = mock_random.randbytes  # of which it makes the ids of uploads
    host, port, folder = sys.argv[1:]
    application = Remembering(
        DomainDispatcherApplication(create_backend_app), Path(folder), mock_random.seed
    )
    run_simple(
        host,
        int(port),
        application,
        threaded=True,
        request_handler=MotoRequestHandler,
    )
