"""The back end of a sweep on Ray Tune: a trial per spec, on this machine or a cluster.

Ray takes seconds to import, so nothing of it is before there is something to run.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from backstop.platform.sweeps.backend import Observer, Task
from backstop.platform.sweeps.queues import Queue
from backstop.platform.workers import rays
from backstop.platform.workers.cluster import local_ray, share_cluster


class RayTune:
    """Runs a queue on the Ray at an address, or on a private local one."""

    name = "Ray"

    def __init__(
        self,
        address: str | None = None,
        actors: str | int = "auto",
        at_once: int | None = None,
    ) -> None:
        """``actors`` train the clients of one trial; at most ``at_once`` trials run together."""
        self.address, self.actors, self.at_once = address, actors, at_once

    @property
    def elsewhere(self) -> bool:
        """A cluster's devices are not known here."""
        return bool(self.address)

    def check(self) -> None:
        """Check that a cluster answers, or that a local Ray has room for its files."""
        rays.check_address(self.address)

    def start(self) -> AbstractContextManager[Any]:
        """Connect to the cluster, or start a local Ray."""
        return local_ray(self.address)

    def run(
        self,
        queue: Queue,
        task: Task,
        observer: Observer,
    ) -> None:
        """Run all that the queue has, as many trials together as fit."""
        from backstop.platform.sweeps.trials import run_trials

        together = min(len(queue.waiting), self.at_once or len(queue.waiting))
        workers = share_cluster(self.actors, together, task.device)
        run_trials(queue, task, observer, workers, self.at_once)
