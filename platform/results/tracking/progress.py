"""How far a sweep is, as its driver notes it now and then in the sweep's run: whoever reaches the
store can read it.

The note is one tag. Times are seconds since 1970, by the driver's clock.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.description import TAG_LIMIT
from backstop.platform.results.tracking.store import (
    Store,
    check_still_there,
    mlflow_client,
    refusing,
)

PROGRESS = "backstop.progress"
COMMAND_LIMIT = 1000  # characters of a command, or of a path
SHOWN_REASON = 200  # characters of a failure's reason


class Running(NamedTuple):
    """A run under way."""

    id: str  # of its spec
    words: str
    since: float
    round: int | None  # rounds that are done; None where that is not known
    rounds: int | None


class Progress(NamedTuple):
    """What the driver of a sweep knows of it."""

    driver: str  # its name, as :mod:`drivers` has it
    host: str
    process: int
    directory: str  # in which the command was given
    command: str  # empty where a notebook has started the sweep
    began: float
    noted: float = 0.0
    expected: int = 0  # runs in all, as far as that can be told
    done: int = 0  # those that have their figures
    pruned: int = 0  # proposals of searches that were given up early
    running: tuple[Running, ...] = ()  # as many as a tag holds
    running_count: int = 0
    failures: Mapping[str, str] = {}  # spec id → why, as many as a tag holds


def begin_progress(driver: str, command: str) -> Progress:
    """The note of this process, before anything has run."""
    return Progress(
        driver=driver,
        host=socket.gethostname(),
        process=os.getpid(),
        directory=str(Path.cwd())[:COMMAND_LIMIT],
        command=command[:COMMAND_LIMIT],
        began=time.time(),
    )


def write_progress(
    store: Store,
    run_id: str,
    progress: Progress,
) -> bool:
    """Note it in the sweep's run; False when the store cannot be reached."""
    try:
        with refusing(store):
            check_still_there(store)
            text = progress_text(progress._replace(noted=time.time()))
            mlflow_client(store.uri).set_tag(run_id, PROGRESS, text)
    except BadInput:
        return False
    return True


def read_progress(tags: Mapping[str, str]) -> Progress | None:
    """The note among the tags of a sweep's run; None without one."""
    text = tags.get(PROGRESS)
    if text is None:
        return None
    fields: dict[str, Any] = json.loads(text)
    fields["running"] = tuple(Running(*item) for item in fields["running"])
    return Progress(**fields)


def progress_text(progress: Progress) -> str:
    """As a tag holds it: what does not fit is left out, the newest runs first."""
    reasons = {key: reason[:SHOWN_REASON] for key, reason in progress.failures.items()}
    shown = progress._replace(failures=reasons)
    text = _json(shown)
    while len(text) > TAG_LIMIT:
        shown = _shorter(shown)
        text = _json(shown)
    return text


def _shorter(progress: Progress) -> Progress:
    """The note without half of what its longer list names."""
    running, failures = progress.running, progress.failures
    if len(running) >= len(failures):
        return progress._replace(running=running[: len(running) // 2])
    kept = list(failures)[: len(failures) // 2]
    return progress._replace(failures={key: failures[key] for key in kept})


def _json(progress: Progress) -> str:
    return json.dumps(
        progress._asdict(),
        ensure_ascii=False,
        separators=(",", ":"),
    )
