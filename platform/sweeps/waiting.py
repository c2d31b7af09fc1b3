"""A tracking server that is away is waited for. Runs that are trained and not stored wait in their
checkpoints and are sent without training again.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from threading import Event
from typing import TypeVar

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.soundness import check_reachable
from backstop.platform.results.tracking.store import Away, Store, database_file
from backstop.platform.rounds.checkpoint import Checkpoint, saved_ids
from backstop.platform.specs.spec import Spec
from backstop.platform.storage import Location
from backstop.platform.sweeps.queues import Queue
from backstop.platform.sweeps.session import Destination, store_run

PATIENCE_SETTING = (
    "BACKSTOP_PATIENCE"  # seconds that the end of a sweep waits for its tracking server
)
USUAL_PATIENCE = 300.0  # where that is not set: time for a server's or its database's restart
LOCAL_PATIENCE = 10.0  # the same for a file: a lock goes, a full disk stays
SOON, LATE = 2.0, 30.0  # seconds before the second try, doubled with each one up to the last
Returned = TypeVar("Returned")


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


def drop_stored(finished: Collection[str], checkpoints: Location) -> None:
    """Remove the checkpoints of runs that are finished: who stored them was killed before that."""
    for spec_id in saved_ids(checkpoints).intersection(finished):
        Checkpoint(checkpoints, spec_id).drop()


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


class Patience:
    """How long a command waits for a tracking server that has gone away.

    It lasts from the first failure until an answer: several calls in a row wait no longer than one.
    """

    def __init__(self, store: Store, say: Callable[[str], None]) -> None:
        """Raises BadInput for a setting that is none."""
        self.store = store
        self.say = say
        self.seconds = patience(store)
        self.ends: float | None = None  # where the server is away
        self.pause = SOON
        self.given_up = Event()

    def insist(self, action: Callable[[], Returned]) -> Returned:
        """What the action returns, tried again where the server is away. Raises BadInput: at once
        where waiting mends nothing, else when patience has ended.
        """
        while True:
            try:
                answer = action()
            except Away as error:
                self._say_once(error)
                if not self.wait():
                    raise
            else:
                self.answered()
                return answer

    def wait(self) -> bool:
        """Wait for the next try, longer each time; False where patience has ended."""
        now = time.monotonic()
        if self.ends is None:
            self.ends, self.pause = now + self.seconds, SOON
        if now + self.pause > self.ends or self.given_up.wait(self.pause):
            return False
        self.pause = min(2 * self.pause, LATE)
        return True

    def answered(self) -> None:
        """The server is there."""
        self.ends = None

    def give_up(self) -> None:
        """Whoever waits in another thread waits no longer."""
        self.given_up.set()

    def _say_once(self, error: Away) -> None:
        if self.ends is None and self.seconds:
            limit = f"for up to {self.seconds:.0f} s"
            self.say(f"backstop: waiting for the tracking server {limit} ({error}) …")


def insist(
    queue: Queue,
    destination: Destination,
    patience: Patience,
) -> list[str]:
    """Send what waits at the end of a sweep, until all is stored or patience ends.

    The ids of what is stored now.
    """
    stored: list[str] = []
    while True:
        if answers(destination.store):
            kept = [queue.specs[key] for key, item in queue.unstored.items() if item.kept]
            with suppress(BadInput):  # checkpoints that cannot be reached now
                stored += send(kept, queue, destination)
        if not any(item.kept for item in queue.unstored.values()):
            patience.answered()
            return stored
        if not patience.wait():
            return stored


def answers(store: Store) -> bool:
    """Whether a tracking server is there: a try to send may hang for longer than this question."""
    if database_file(store) is not None:
        return True
    try:
        check_reachable(store)
    except BadInput:
        return False
    return True
