"""The garbage collector, kept out of the way of imports and of a process's end.

The modules of PyTorch and MLflow are 440,000 objects that stay. While they are imported, the
collector walks over those that are there again and again, a fifth of the time that it takes; and
when the process ends it looks for garbage among all of them once more.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def resting() -> Iterator[None]:
    """Let the collector rest while the block imports."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def skip_at_exit() -> None:
    """Let the process end without a last collection: its memory goes back to the system anyway."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
