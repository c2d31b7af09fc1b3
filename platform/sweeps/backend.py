"""What runs a queue. A back end of one's own is a class with these members, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from backstop.platform import loose
from backstop.platform.experiment import Experiment
from backstop.platform.loose import LooseFile
from backstop.platform.specs.spec import Spec
from backstop.platform.sweeps.queues import Finals, Queue
from backstop.platform.sweeps.session import Destination, Session
from backstop.platform.workers.clients import Clients


class Task(NamedTuple):
    """What all trials of a sweep share: where to write, what to read, what to compute on."""

    destination: Destination
    data: Path  # data folder
    device: str
    files: tuple[LooseFile, ...] = ()  # loose plug-ins, which no other machine has

    def session(self, spec: Spec, clients: Clients | None = None) -> Session:
        """A spec's experiment, taken up where its checkpoint left off; its MLflow run is open."""
        loose.receive(self.files)
        experiment = Experiment(spec, self.data, self.device, clients)
        session = Session(experiment, self.destination.checkpoints, lambda: self.destination)
        session.open_log()
        return session


class Observer(Protocol):
    """What is told how trials go."""

    def started(self, spec: Spec) -> None:
        """A trial has what it needs to run."""

    def result(
        self,
        spec: Spec,
        rounds: int,
        last: Mapping[str, float],
    ) -> None:
        """A trial has done so many rounds; the metrics of the last evaluated one."""

    def ended(
        self,
        spec: Spec,
        finals: Finals | None,
        stored: bool,
    ) -> None:
        """A trial is done, its run stored or not; without finals it has failed for good."""


class Backend(Protocol):
    """What runs a queue's specs, anywhere and in any order: the figures do not depend on it."""

    @property
    def name(self) -> str:
        """Its name for people: ``starting Ray``."""

    @property
    def elsewhere(self) -> bool:
        """Whether trials may run on machines whose devices are not known here."""

    def check(self) -> None:
        """Check, within seconds, that it can start. Raises BadInput."""

    def start(self) -> AbstractContextManager[object]:
        """Start it; it ends with the block. Raises BadInput."""

    def run(
        self,
        queue: Queue,
        task: Task,
        observer: Observer,
    ) -> None:
        """Run all that waits in the queue, and what :meth:`Queue.fill` asks for after that.

        Each run that ends is told to the queue (``ended`` or ``failed``) and to the observer.
        """
