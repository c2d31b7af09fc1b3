"""A Ray to run on: a cluster that is there, or a private one on this machine."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from backstop.platform import collector
from backstop.platform.params import BadInput
from backstop.platform.workers import loss, rays, sessions

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
START_TRIES = 3  # of a private Ray
TOO_SLOW = "timed out during startup"  # Ray's words for it
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
    store: Path | None = None,
    when_lost: Callable[[str], object] | None = None,
) -> Iterator[Any]:
    """A Ray to work on: the cluster at ``address``, or a private local one that ends with the
    block. Quiet, without dashboard and usage statistics; a local Ray never joins a cluster that
    happens to run on this machine. The processes of a local one import the module ``preload`` as
    they start, before anybody asks for them. The files of a local one go when it ends; ``store``
    remembers them, so that they go too where this process is killed. ``when_lost`` is told which
    process of a local Ray has died, all others of it ended by then; without it nobody looks.

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
    with ExitStack() as held:
        if isinstance(endpoint_or_folder, Path):
            held.enter_context(_own_files(endpoint_or_folder / "ray", store))
        try:
            with _preloading(preload):
                _connect(endpoint_or_folder, cpus or available())
        except Exception as error:  # a start that takes too long is one of no class of its own
            problem = str(error).partition("\n")[0]
            raise BadInput(f"Ray at {address or 'local'} cannot be used: {problem}") from error
        held.callback(_shut_down)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own would abort the process
        if isinstance(endpoint_or_folder, Path) and when_lost is not None:
            held.enter_context(_watched(when_lost))
        yield ray


def _shut_down() -> None:
    """End Ray while nobody collects garbage: where another thread, in the midst of this, lets go of
    what Ray had given out, Ray ends the process with exit code 1.
    """
    import ray

    with collector.resting():
        ray.shutdown()


def take_back_sigterm() -> None:
    """Let Python's own handler have SIGTERM again: Ray takes it as it starts, prints a trace and
    aborts the process soon after. Only the main thread can, wherever Ray was started.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _own_files(folder: Path, store: Path | None) -> Iterator[None]:
    """The files of private Rays that this process starts while the block lasts go with it, those
    of a start that fails too.
    """
    earliest = sessions.earliest_session(folder.absolute())

    def end_all() -> None:
        for session in sessions.started_sessions(earliest):
            sessions.end_session(session)

    with ExitStack() as held:
        if store is not None:
            held.enter_context(sessions.recorded(store, earliest))
        held.callback(end_all)
        yield


def _watched(when_lost: Callable[[str], object]) -> AbstractContextManager[None]:
    """While the block lasts, tell which process of the private Ray has died, once all others of it
    have been ended.
    """
    session = _own_session()

    def end_rest(lost: str) -> None:
        sessions.end_session(session)
        when_lost(lost)

    return loss.watched(_vital(), end_rest)


def _vital() -> dict[str, Any]:
    """The processes without which the private Ray of this process is of no use."""
    from ray._private import worker

    node: Any = worker._global_node  # noqa: SLF001 -- Ray says it nowhere else
    names = {"raylet": "Ray's raylet", "gcs_server": "Ray's GCS"}
    return {words: node.all_processes[name][0].process for name, words in names.items()}


def _own_session() -> Path:
    """The folder of the private Ray that this process has started."""
    from ray._private import worker

    node: Any = worker._global_node  # noqa: SLF001 -- Ray says it nowhere else
    return Path(node.get_session_dir_path())


def _set_environment() -> None:
    """Settings that Ray and Tune read from the environment only."""
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_LOG_TO_DRIVER="0",
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        RAY_AIR_NEW_OUTPUT="0",
        # what Ray prints about workers that died would stand in the middle of --json
        RAY_DEDUP_LOGS_SKIP_REGEX=".*",
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
    own: dict[str, Any] = {}
    usual = rays.temporary()
    if folder != usual:
        own["_temp_dir"] = str(folder / "ray")
        why = f"{usual} is too long for its sockets"
        print(f"Ray keeps its files in {folder / 'ray'}: {why}", file=sys.stderr, flush=True)
    for attempt in range(START_TRIES):
        try:
            _init_own(cpus, own)
        except Exception as error:
            # Ray waits half a minute for its raylet, which a busy machine may need
            if TOO_SLOW not in str(error) or attempt == START_TRIES - 1:
                raise
        else:
            return


def _init_own(cpus: int, own: Mapping[str, Any]) -> None:
    """Start a private Ray. Raises what Ray raises: for one that is slow, a plain Exception."""
    import ray

    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        **own,
        **QUIET_RAY,
    )
