"""The back end of a sweep on Ray Tune: a trial per spec, on this machine or a cluster.

Ray takes seconds to import, so nothing of it is before there is something to run.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from backstop.platform.sweeps.backend import Observer, Task
from backstop.platform.sweeps.queues import Queue
from backstop.platform.workers import rays
from backstop.platform.workers.cluster import share_cluster
from backstop.platform.workers.connection import available, local_ray

PRELOADED = "backstop.platform.sweeps.prepared"  # what a trial's process imports


class RayTune:
    """Runs a queue on the Ray at an address, or on a private local one."""

    name = "Ray"

    def __init__(
        self,
        address: str | None = None,
        actors: str | int = "auto",
        at_once: int | None = None,
        runs: int = 0,
    ) -> None:
        """``actors`` train the clients of one trial; at most ``at_once`` trials run together, of
        about so many ``runs``.
        """
        self.address, self.actors, self.at_once, self.runs = address, actors, at_once, runs

    @property
    def elsewhere(self) -> bool:
        """A cluster's devices are not known here."""
        return bool(self.address)

    def check(self) -> None:
        """Check that a cluster answers, or that a local Ray has room for its files."""
        rays.check_address(self.address)

    def start(self) -> AbstractContextManager[Any]:
        """Connect to the cluster, or start a local Ray.

        It starts a process for each core; they prepare for a trial where each will get one.
        """
        together = min(self.runs, self.at_once or self.runs)
        return local_ray(self.address, preload=PRELOADED if together >= available() else "")

    def run(
        self,
        queue: Queue,
        task: Task,
        observer: Observer,
    ) -> None:
        """Run all that the queue has, as many trials together as fit."""
        from backstop.platform.sweeps.trials import prepared_processes, run_trials

        together = min(len(queue.waiting), self.at_once or len(queue.waiting))
        workers = share_cluster(self.actors, together, task.device)
        with nullcontext() if self.elsewhere else prepared_processes():
            run_trials(queue, task, observer, workers, self.at_once)
