"""What the store is told of a sweep while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from backstop.platform.results.tracking.progress import Progress, Running
from backstop.platform.specs.spec import Spec
from backstop.platform.sweeps.backend import Observer
from backstop.platform.sweeps.plan import run_words
from backstop.platform.sweeps.queues import Finals, Queue

NOTE_INTERVAL = 15.0  # seconds between two notes
COUNT_INTERVAL = 1.0  # seconds between two looks at the queue, which may be long
LAST_NOTE_WAIT = 5.0  # seconds that the end of a sweep waits for the last note


class Reporter:
    """An observer that passes on what it is told, and has a thread that sends a note of it now and
    then: a store that is slow or away holds no trial up.
    """

    def __init__(
        self,
        observer: Observer,
        queue: Queue,
        *,
        first: Progress,
        send: Callable[[Progress], object],
        pruned: Callable[[], int],
    ) -> None:
        """``first`` says who the driver is; ``send`` takes a note to the store."""
        self.observer = observer
        self.queue = queue
        self.counted = first
        self.send = send
        self.pruned = pruned
        self.running: dict[str, Running] = {}
        self.count_at = 0.0
        self.ending = threading.Event()
        self.sending = threading.Thread(target=self._keep_sending, daemon=True)

    def __enter__(self) -> Self:
        """Send the first note, and go on."""
        self._count()
        self.sending.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send the last note: nothing runs any more."""
        self.running.clear()
        self._count()
        self.ending.set()
        self.sending.join(LAST_NOTE_WAIT)

    def started(self, spec: Spec) -> None:
        """A trial has its resources."""
        self.running[spec.id] = Running(
            spec.id,
            run_words(spec),
            since=time.time(),
            round=0,
            rounds=spec.rounds,
        )
        self._count_now_and_then()
        self.observer.started(spec)

    def result(
        self,
        spec: Spec,
        rounds: int,
        last: Mapping[str, float],
    ) -> None:
        """A trial has done some rounds."""
        if spec.id in self.running:
            self.running[spec.id] = self.running[spec.id]._replace(round=rounds)
        self.observer.result(spec, rounds, last)

    def ended(
        self,
        spec: Spec,
        finals: Finals | None,
        stored: bool,
    ) -> None:
        """A trial is done, or has failed for good."""
        self.running.pop(spec.id, None)
        self._count_now_and_then()
        self.observer.ended(spec, finals, stored)

    def _count_now_and_then(self) -> None:
        if time.monotonic() > self.count_at + COUNT_INTERVAL:
            self._count()

    def _count(self) -> None:
        """Look at the queue, which belongs to this thread."""
        self.count_at = time.monotonic()
        queue = self.queue
        trained = [spec_id for spec_id in queue.specs if queue.results.get(spec_id) is not None]
        self.counted = self.counted._replace(
            expected=queue.expected,
            done=len(trained) - len(queue.unstored),
            pruned=self.pruned(),
            failures=dict(queue.failures),
        )

    def _keep_sending(self) -> None:
        self.send(self._note())
        while not self.ending.wait(NOTE_INTERVAL):
            self.send(self._note())
        self.send(self._note())

    def _note(self) -> Progress:
        """What is known now; a copy of a dict is made at once, whoever changes it meanwhile."""
        running = tuple(self.running.copy().values())
        return self.counted._replace(running=running, running_count=len(running))
