"""The Ray that is running: what it has, and who trains the clients of one experiment on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from backstop.platform.workers.clients import Clients, InProcess
from backstop.platform.workers.connection import available, local_ray
from backstop.platform.workers.memory import MEBIBYTE
from backstop.platform.workers.sharing import (
    MOST_THREADS,
    Resources,
    TrialWorkers,
    share_processors,
)

Answer = TypeVar("Answer")  # what a function comes to


def nodes() -> list[Mapping[str, Any]]:
    """The nodes of the Ray that is running, those that are alive, as Ray describes them."""
    import ray

    list_nodes: Any = ray.nodes
    return [node for node in list_nodes() if node["Alive"]]


def measured_resources(
    gpu_mib: float | None = None,
    only: Collection[str] | None = None,
) -> Resources:
    """What the Ray that is running has, or some of its nodes by their ids, as it is shared among
    trials; ``gpu_mib`` is the memory of a GPU.
    """
    have = [node["Resources"] for node in nodes() if only is None or node["NodeID"] in only]
    return Resources(
        cpus=sum(node.get("CPU", 0.0) for node in have) or 1.0,
        gpus=sum(node.get("GPU", 0.0) for node in have),
        largest_node=max((node.get("CPU", 0.0) for node in have), default=1.0),
        memory_mib=sum(node.get("memory", 0.0) for node in have) / MEBIBYTE,
        gpu_mib=gpu_mib,
    )


def node_words() -> list[str]:
    """The nodes of the Ray that is running, a line each for people."""
    lines = []
    for node in nodes():
        have = node["Resources"]
        gpus = f", {have['GPU']:.0f} GPUs" if have.get("GPU") else ""
        memory = have.get("memory", 0.0) / 2**30
        cpus = have.get("CPU", 0.0)
        lines.append(f"node {node['NodeManagerAddress']}: {cpus:.0f} CPUs{gpus}, {memory:.1f} GiB")
    return lines


def on_a_node(
    function: Callable[..., Answer],
    device: str,
    *arguments: Any,
) -> Answer:
    """What a function comes to in a process of the Ray that is running."""
    import ray

    remote: Any = ray.remote(function)
    gpus = 1 if device == "cuda" else 0
    answer: Any = ray.get(remote.options(num_cpus=1, num_gpus=gpus).remote(*arguments))
    return answer  # type: ignore[no-any-return]


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
    return share_processors(actors, trials, measured_resources(), device)
