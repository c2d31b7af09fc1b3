"""A Ray to run on, and how its processors are shared among trials."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backstop.platform.params import BadInput
from backstop.platform.workers import rays
from backstop.platform.workers.actors import ActorShare, OnActors
from backstop.platform.workers.clients import Clients

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
    place = rays.check_address(address)
    if isinstance(place, Path):
        # loopback only; a token would be written under HOME
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        if isinstance(place, str):
            ray.init(address=place, **QUIET_RAY)
        else:
            _start_own(place, cpus or available())
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


def _start_own(folder: Path, cpus: int) -> None:
    """Start a private Ray that keeps its files in the folder; say so where it is not the usual."""
    import ray

    own: dict[str, Any] = {}
    usual = rays.temporary()
    if folder != usual:
        own["_temp_dir"] = str(folder / "ray")
        why = f"{usual} is too long for its sockets"
        print(f"Ray keeps its files in {folder / 'ray'}: {why}", file=sys.stderr, flush=True)
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, **own, **QUIET_RAY)


def cluster_resources() -> Mapping[str, float]:
    """What the Ray that is running has: CPU, GPU and more."""
    import ray

    resources: Any = ray.cluster_resources
    return dict(resources())


@contextmanager
def hired_clients(
    address: str | None,
    actors: str | int,
    device: str,
) -> Iterator[Clients | None]:
    """Ray actors that train the clients of one experiment, as many as asked for.

    None, and no Ray, where 0 are: its own process trains them.
    """
    if not actors:
        yield None
        return
    with local_ray(address):
        have = cluster_resources()
        count, share = share_processors(actors, 1, have.get("CPU", 1), have.get("GPU", 0), device)
        yield OnActors(count, device=device, share=share)


def share_processors(
    actors: str | int,
    trials: int,
    cpus: float,
    gpus: float,
    device: str,
) -> tuple[int, ActorShare]:
    """Client actors of a trial and what each takes.

    ``auto`` gives whole trials to cores while there are at least as many trials as cores, and
    spreads a trial over client actors when there are not. More actors than cores share them.
    """
    if actors == "auto":
        actors = 0 if trials >= cpus else max(1, int(cpus // max(trials, 1)))
    count = int(actors)
    share = ActorShare(
        cpus=min(1.0, cpus / count) if count else 1.0,
        gpus=min(1.0, gpus / max(count, 1)) if device == "cuda" else 0.0,
    )
    return count, share
