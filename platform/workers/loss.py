"""A private Ray that loses its raylet or its GCS is of no use any more, and whoever asks it waits:
without a GCS, Ray's own code ends the process after a minute, and a call to it never returns before
that. So a thread looks at the two, and says when one has died.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

LOOK_AGAIN_S = 1.0  # seconds between two looks


@contextmanager
def watched(
    vital: Mapping[str, subprocess.Popen[bytes]],
    when_lost: Callable[[str], object],
) -> Iterator[None]:
    """While the block lasts, call ``when_lost`` with the name of the first process that ends, in a
    thread of its own.
    """
    over = Event()

    def look() -> None:
        while not over.wait(LOOK_AGAIN_S):
            for name, process in vital.items():
                if process.poll() is not None and not over.is_set():
                    when_lost(name)
                    return

    looking = Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
