"""The back end of a sweep on Ray Tune: a trial per spec, on this machine or a cluster.

Ray takes seconds to import, so nothing of it is before there is something to run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from backstop.platform.results.tracking.runs import Run
from backstop.platform.specs.spec import Spec
from backstop.platform.sweeps.backend import Observer, Task
from backstop.platform.sweeps.calibration import PREPARED, calibrate, worst_load
from backstop.platform.sweeps.queues import Queue
from backstop.platform.workers import rays, sessions
from backstop.platform.workers.connection import available, local_ray, take_back_sigterm
from backstop.platform.workers.fingerprints import Alike, ask_nodes, choose_alike
from backstop.platform.workers.limits import Limits
from backstop.platform.workers.machine import gpu_mib
from backstop.platform.workers.sharing import (
    Load,
    Resources,
    hangs_on_load,
    held,
    share_processors,
    slots,
)

MEASURING_S = 20.0  # before a sweep whose spread hangs on it


class Precautions(NamedTuple):
    """What is done against what may happen to a sweep."""

    limits: Limits = Limits()  # of one trial
    store: Path | None = None  # the folder that remembers a local Ray's files
    when_lost: Callable[[str], object] | None = None  # told when a process of a local Ray has died


class RayTune:
    """Runs a queue on the Ray at an address, or on a private local one."""

    name = "Ray"

    def __init__(
        self,
        address: str | None = None,
        actors: str | int = "auto",
        at_once: int | None = None,
        runs: int = 0,
        say: Callable[[str], None] = lambda _: None,
        mix_fingerprints: bool = False,
        precautions: Precautions = Precautions(),  # noqa: B008 -- a named tuple
    ) -> None:
        """``actors`` train the clients of one trial; at most ``at_once`` trials run together, of
        about so many ``runs``. ``say`` gets a line where it was measured how trials are spread, and
        where nodes of a cluster are left out because they compute otherwise.
        """
        self.address, self.actors, self.at_once, self.runs = address, actors, at_once, runs
        self.say = say
        self.mix_fingerprints = mix_fingerprints
        self.precautions = precautions

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
        if self.precautions.store is not None:
            sessions.remove_leftovers(self.precautions.store)
        together = min(self.runs, self.at_once or self.runs)
        return local_ray(
            self.address,
            preload=PREPARED if together >= available() else "",
            store=self.precautions.store,
            when_lost=self.precautions.when_lost,
        )

    def run(
        self,
        queue: Queue,
        task: Task,
        observer: Observer,
    ) -> None:
        """Run all that the queue has, as many trials together as processors and memory hold."""
        from backstop.platform.sweeps.trials import Placement, prepared_processes, run_trials
        from backstop.platform.workers.cluster import measured_resources

        take_back_sigterm()  # Ray was started in another thread
        alike = self._nodes(queue.finished, task.device)
        if alike.remark:
            self.say(f"backstop: {alike.remark}")
        together = min(len(queue.waiting), self.at_once or len(queue.waiting))
        have = measured_resources(gpu_mib(task.device), alike.nodes)
        load = self._load(queue.waiting, task, have, together)
        workers = share_processors(self.actors, together, have, task.device, load)
        if load is not None:
            self.say(f"backstop: {workers.words}: {workers.reason}")
        limits = [limit for limit in (self.at_once, held(workers, have, load)) if limit]
        fitting = slots(workers, {"CPU": have.cpus, "GPU": have.gpus})
        allowed = self.precautions.limits._replace(logs=task.destination.logs)
        workers = workers._replace(limits=allowed)
        placement = Placement(workers, fitting, min(limits, default=None), alike)
        with nullcontext() if self.elsewhere else prepared_processes():
            run_trials(queue, task, observer, placement)

    def _nodes(self, finished: Sequence[Run], device: str) -> Alike:
        """The nodes of a cluster that compute alike. Raises BadInput where none computes as the
        finished runs were.
        """
        if not self.elsewhere or self.mix_fingerprints:
            return Alike("", None)
        from backstop.platform.workers.cluster import nodes

        return choose_alike(ask_nodes(nodes(), device), {run.fingerprint for run in finished})

    def _load(
        self,
        specs: Sequence[Spec],
        task: Task,
        have: Resources,
        together: int,
    ) -> Load | None:
        """What a trial takes, measured where it matters: some seconds against a sweep's hours."""
        if not hangs_on_load(self.actors, together, have, task.device):
            return None
        self.say(f"backstop: measuring some runs for up to {MEASURING_S:.0f} s …")
        return worst_load(calibrate(specs, task.data, task.device, MEASURING_S))
