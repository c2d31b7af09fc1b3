"""Runs that are trained and not stored: they wait in their checkpoints and are sent without
training again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from backstop.platform.params import BadInput
from backstop.platform.results.log import Log
from backstop.platform.results.store import Store, check_reachable, database_file
from backstop.platform.rounds.checkpoint import Checkpoint
from backstop.platform.rounds.finals import final
from backstop.platform.specs.spec import Spec
from backstop.platform.sweeps.plan import Queue, Unstored

PATIENCE = 60.0  # seconds that the end of a sweep waits for its store: a server's restart
LOCAL_PATIENCE = 10.0  # the same for a file: a lock goes, a full disk stays
EVERY = 5.0  # seconds between two tries


class Address(NamedTuple):
    """Where the runs of a sweep go."""

    store: Store
    experiment: str  # MLflow experiment id
    parent: str | None  # MLflow run id of the sweep
    space: str
    checkpoints: Path
    driver: str = ""  # who sends them


def send(specs: Iterable[Spec], queue: Queue, to: Address) -> list[str]:
    """Store those of the specs whose checkpoints are done; the ids of what is stored now.

    The queue is told their final figures, and of those that the store did not take, why.
    """
    stored = []
    for spec in specs:
        checkpoint = Checkpoint(to.checkpoints, spec.id)
        saved = checkpoint.read() if checkpoint.path.exists() else None
        if saved is None or not saved.done:
            continue
        log = Log(
            to.store,
            to.experiment,
            spec,
            origin=saved.origin,
            space=to.space,
            parent=to.parent,
            driver=to.driver,
        )
        for record in saved.records:
            log.log(record)
        finals = final(saved.records)
        if not log.finish(finals, saved.model):
            queue.unstored[spec.id] = Unstored(log.error, kept=True)
            continue
        checkpoint.drop()
        queue.results[spec.id] = finals
        queue.unstored.pop(spec.id, None)
        queue.findings += [log.finding] * bool(log.finding)
        stored.append(spec.id)
    return stored


def patience(store: Store) -> float:
    """Seconds that the end of a sweep waits for its store."""
    return PATIENCE if database_file(store) is None else LOCAL_PATIENCE


def insist(queue: Queue, to: Address) -> list[str]:
    """Send what waits at the end of a sweep, again and again until all is stored or patience ends;
    the
    ids of what is stored now.
    """
    stored: list[str] = []
    until = time.monotonic() + patience(to.store)
    while True:
        if _answers(to.store):
            waits = [queue.specs[key] for key, item in queue.unstored.items() if item.kept]
            stored += send(waits, queue, to)
        left = any(item.kept for item in queue.unstored.values())
        if not left or time.monotonic() + EVERY > until:
            return stored
        time.sleep(EVERY)


def _answers(store: Store) -> bool:
    """Whether a tracking server is there: a try to send may hang for longer than this question."""
    if database_file(store) is not None:
        return True
    try:
        check_reachable(store)
    except BadInput:
        return False
    return True
