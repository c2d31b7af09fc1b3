"""Runs that are trained and not stored: they wait in their checkpoints and are sent without
training again.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from contextlib import suppress

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.soundness import check_reachable
from backstop.platform.results.tracking.store import Store, database_file
from backstop.platform.rounds.checkpoint import Checkpoint, saved_ids
from backstop.platform.specs.spec import Spec
from backstop.platform.sweeps.queues import Queue
from backstop.platform.sweeps.session import Destination, store_run

PATIENCE_SETTING = (
    "BACKSTOP_PATIENCE"  # seconds that the end of a sweep waits for its tracking server
)
USUAL_PATIENCE = 300.0  # where that is not set: time for a server's or its database's restart
LOCAL_PATIENCE = 10.0  # the same for a file: a lock goes, a full disk stays
SOON, LATE = 2.0, 30.0  # seconds before the second try, doubled with each one up to the last


def send(
    specs: Iterable[Spec],
    queue: Queue,
    destination: Destination,
) -> list[str]:
    """Store those of the specs whose checkpoints are done; the ids of what is stored now.

    The queue is told their final figures, and of those that the store did not take, why.
    """
    stored = []
    there = saved_ids(destination.checkpoints)
    for spec in specs:
        checkpoint = Checkpoint(destination.checkpoints, spec.id)
        saved = checkpoint.read() if spec.id in there else None
        if saved is None or not saved.done:
            continue
        log = destination.open_log(spec, saved.origin, saved.records)
        model = saved.model if destination.keeps_models else None
        outcome = store_run(log, checkpoint, saved.records, model)
        if outcome.stored:
            queue.ended(spec, outcome)
            stored.append(spec.id)
        else:
            queue.note(spec, outcome)
    return stored


def patience(store: Store) -> float:
    """Seconds that the end of a sweep waits for its store. Raises BadInput for a setting that is no
    number of seconds.
    """
    if database_file(store) is not None:
        return LOCAL_PATIENCE
    given = os.environ.get(PATIENCE_SETTING, "").strip() or USUAL_PATIENCE
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise BadInput(f"{PATIENCE_SETTING}={given!r} is not allowed; seconds, at least 0")
    return seconds


def insist(queue: Queue, destination: Destination) -> list[str]:
    """Send what waits at the end of a sweep, until all is stored or patience ends.

    The ids of what is stored now.
    """
    stored: list[str] = []
    deadline = time.monotonic() + patience(destination.store)
    pause = SOON
    while True:
        if answers(destination.store):
            kept = [queue.specs[key] for key, item in queue.unstored.items() if item.kept]
            with suppress(BadInput):  # checkpoints that cannot be reached now
                stored += send(kept, queue, destination)
        left = any(item.kept for item in queue.unstored.values())
        if not left or time.monotonic() + pause > deadline:
            return stored
        time.sleep(pause)
        pause = min(2 * pause, LATE)


def answers(store: Store) -> bool:
    """Whether a tracking server is there: a try to send may hang for longer than this question."""
    if database_file(store) is not None:
        return True
    try:
        check_reachable(store)
    except BadInput:
        return False
    return True
