"""A Ray to run on: a cluster that is there, or a private one on this machine."""

from __future__ import annotations

import logging
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

QUIET_RAY: Mapping[str, Any] = {
    "log_to_driver": False,
    "logging_level": "ERROR",
    "configure_logging": True,
}
# Ray's settings of processes that it starts before anybody asks for them: they are not ended as
# idle in the moment before they get their trials, and run as urgently as those that are asked for
IN_ADVANCE = {
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    "RAY_worker_niceness": "0",
}
PRELOAD = "RAY_preload_python_modules"  # what they import


def available() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def local_ray(
    address: str | None,
    cpus: int | None = None,
    *,
    preload: str = "",
) -> Iterator[Any]:
    """A Ray to work on: the cluster at ``address``, or a private local one that ends with the
    block. Quiet, without dashboard and usage statistics; a local Ray never joins a cluster that
    happens to run on this machine. The processes of a local one import the module ``preload`` as
    they start, before anybody asks for them.

    Raises BadInput where it cannot be had; for a cluster that is not there, within seconds.
    """
    _set_environment()
    endpoint_or_folder = rays.check_address(address)
    if isinstance(endpoint_or_folder, Path):
        # loopback only; a token would be written under HOME
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    if threading.current_thread() is not threading.main_thread():
        # a warning that signals are handled elsewhere, which is meant
        logging.getLogger("ray._private.worker").setLevel(logging.ERROR)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with _preloading(preload):
            _connect(endpoint_or_folder, cpus or available())
    except Exception as error:  # a start that takes too long is one of no class of its own
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


@contextmanager
def _preloading(module: str) -> Iterator[None]:
    """Let a Ray that is started in the block hand the settings on to its processes."""
    if not module:
        yield
        return
    settings = {**IN_ADVANCE, PRELOAD: module}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
