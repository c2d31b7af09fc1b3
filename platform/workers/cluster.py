"""A Ray to run on, and how its processors are shared among trials."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from backstop.platform.params import BadInput
from backstop.platform.workers import rays
from backstop.platform.workers.actors import ActorShare, OnActors
from backstop.platform.workers.clients import Clients, InProcess

MOST_THREADS = 8  # of one process: more would wait for the interpreter's lock

QUIET_RAY: Mapping[str, Any] = {
    "log_to_driver": False,
    "logging_level": "ERROR",
    "configure_logging": True,
}


def available() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def local_ray(address: str | None, cpus: int | None = None) -> Iterator[Any]:
    """A Ray to work on: the cluster at ``address``, or a private local one that ends with the
    block. Quiet, without dashboard and usage statistics; a local Ray never joins a cluster that
    happens to run on this machine.

    Raises BadInput where it cannot be had; for a cluster that is not there, within seconds.
    """
    _set_environment()
    endpoint_or_folder = rays.check_address(address)
    if isinstance(endpoint_or_folder, Path):
        # loopback only; a token would be written under HOME
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        _connect(endpoint_or_folder, cpus or available())
    except (OSError, ValueError, RuntimeError) as error:
        problem = str(error).partition("\n")[0]
        raise BadInput(f"Ray at {address or 'local'} cannot be used: {problem}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own would abort the process
    try:
        yield ray
    finally:
        ray.shutdown()


def _set_environment() -> None:
    """Settings that Ray and Tune read from the environment only."""
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_LOG_TO_DRIVER="0",
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        RAY_AIR_NEW_OUTPUT="0",
    )
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    # Tune would end the sweep as if it were done; an interruption is an exit code
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"


def _connect(endpoint_or_folder: str | Path, cpus: int) -> None:
    """Join the cluster at the endpoint, or start a private Ray that keeps its files in the folder,
    with so many processors.
    """
    import ray

    if isinstance(endpoint_or_folder, str):
        ray.init(address=endpoint_or_folder, **QUIET_RAY)
    else:
        _start_own(endpoint_or_folder, cpus)


def _start_own(folder: Path, cpus: int) -> None:
    """Start a private Ray that keeps its files in the folder; say so where it is not the usual."""
    import ray

    own: dict[str, Any] = {}
    usual = rays.temporary()
    if folder != usual:
        own["_temp_dir"] = str(folder / "ray")
        why = f"{usual} is too long for its sockets"
        print(f"Ray keeps its files in {folder / 'ray'}: {why}", file=sys.stderr, flush=True)
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        **own,
        **QUIET_RAY,
    )


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
