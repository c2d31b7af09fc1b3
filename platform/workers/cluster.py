"""How the processors of the Ray that is running are shared among trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from backstop.platform.workers.actors import ActorShare, OnActors
from backstop.platform.workers.clients import Clients, InProcess
from backstop.platform.workers.connection import available, local_ray

MOST_THREADS = 8  # of one process: more would wait for the interpreter's lock


def cluster_resources() -> Mapping[str, float]:
    """What the Ray that is running has: CPU, GPU and more."""
    import ray

    resources: Any = ray.cluster_resources
    return dict(resources())


class TrialWorkers(NamedTuple):
    """Who trains the clients of a trial: its own process on some threads, or client actors."""

    actors: int  # 0: its own process
    threads: int  # of its own process
    share: ActorShare  # what one actor, or the process, takes of its node

    @property
    def bundles(self) -> list[dict[str, float]]:
        """The resources of a trial as Ray places them: its driver's, then those of each actor."""
        gpus = {"GPU": self.share.gpus} if self.share.gpus else {}
        if not self.actors:
            return [{"CPU": float(self.threads)} | gpus]
        return [{}, *[{"CPU": self.share.cpus} | gpus] * self.actors]

    def clients(self, device: str) -> Clients:
        """The workers themselves."""
        if self.actors:
            return OnActors(self.actors, device=device, share=self.share)
        return InProcess(self.threads)


def hired_threads() -> InProcess:
    """Threads of this process that train the clients of one experiment, on as many cores as it may
    use.
    """
    return InProcess(min(available(), MOST_THREADS))


@contextmanager
def hired_clients(
    address: str | None,
    actors: str | int,
    device: str,
) -> Iterator[Clients]:
    """Who trains the clients of one experiment: threads of this process, or so many Ray actors.
    Without a cluster ``auto`` is threads, which start at once, need the memory of one process, and
    are faster.
    """
    if not actors or (actors == "auto" and not address):
        yield hired_threads()
        return
    with local_ray(address):
        yield share_cluster(actors, 1, device).clients(device)


def share_cluster(
    actors: str | int,
    trials: int,
    device: str,
) -> TrialWorkers:
    """How so many trials share the Ray that is running."""
    have = cluster_resources()
    return share_processors(
        actors,
        trials,
        cpus=have.get("CPU", 1),
        gpus=have.get("GPU", 0),
        device=device,
        largest_node=_largest_node(),
    )


def _largest_node() -> float:
    """The CPUs of the largest node of the Ray that is running."""
    import ray

    list_nodes: Any = ray.nodes
    cpus = [node["Resources"].get("CPU", 0.0) for node in list_nodes() if node["Alive"]]
    return max(cpus, default=1.0)


def share_processors(
    actors: str | int,
    trials: int,
    cpus: float,
    gpus: float,
    device: str,
    largest_node: float | None = None,
) -> TrialWorkers:
    """How many client actors or threads a trial gets, and what each takes.

    Whole trials go to cores while there are at least as many trials as cores. Where cores are left
    over, a trial's own process uses them on several threads. ``auto`` takes client actors, slower
    for small models, only where more cores are left over for a trial than one process can use, and
    a GPU each where several are. More actors than cores share them.
    """
    spare = max(1, int(cpus // max(trials, 1)))
    threads = min(spare, MOST_THREADS, int(largest_node or cpus) or 1)
    if device == "cuda":
        threads = 1
        spare = int(gpus // max(trials, 1))
    if actors == "auto":
        actors = spare if spare > threads else 0
    count = int(actors)
    share = ActorShare(
        cpus=min(1.0, cpus / count) if count else 1.0,
        gpus=min(1.0, gpus / max(count, 1)) if device == "cuda" else 0.0,
    )
    return TrialWorkers(count, 1 if count else threads, share)
