"""The nodes of a cluster by what their numbers depend on: all runs of a sweep are made alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from backstop.platform.params import BadInput
from backstop.platform.training.device import choose_device, fingerprint

ANSWER_S = 300.0  # a node gets to start a process and import PyTorch, under other work too


class Node(NamedTuple):
    """A node that trials may run on."""

    id: str  # Ray's
    address: str
    processors: float  # GPUs where the sweep computes on them, else CPUs
    fingerprint: str


class Alike(NamedTuple):
    """The nodes that a sweep runs on."""

    fingerprint: str  # of all of them; empty where several are mixed
    nodes: Sequence[str] | None  # their ids; None: all there are, and those that join
    remark: str = ""  # which are left out


def node_fingerprint(device: str) -> str:
    """What numbers depend on here."""
    return fingerprint(choose_device(device))


def ask_nodes(nodes: Sequence[Mapping[str, Any]], device: str) -> list[Node]:
    """The fingerprints of those of Ray's nodes that have what the device needs.

    Raises BadInput where one cannot tell.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    kind = "GPU" if device == "cuda" else "CPU"
    able = [node for node in nodes if node["Resources"].get(kind)]
    remote: Any = ray.remote(node_fingerprint)
    asked = []
    for node in able:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked.append(remote.options(num_cpus=0, scheduling_strategy=here).remote(device))
    alike = []
    for node, answer in zip(able, asked, strict=True):
        try:
            told = str(ray.get(answer, timeout=ANSWER_S))
        except ray.exceptions.RayError as error:
            problem = str(error).strip().rpartition("\n")[2]
            address = node["NodeManagerAddress"]
            raise BadInput(f"node {address} of the cluster cannot run trials: {problem}") from error
        alike.append(
            Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"][kind], told)
        )
    return alike


def choose_alike(nodes: Sequence[Node], stored: Collection[str]) -> Alike:
    """Nodes of one fingerprint: that of the ``stored`` runs where there are some, else the one with
    the most processors.

    Raises BadInput where no node has that of the stored runs.
    """
    processors: dict[str, float] = {}
    for node in nodes:
        processors[node.fingerprint] = processors.get(node.fingerprint, 0.0) + node.processors
    fitting = [name for name in processors if not stored or name in stored]
    if not fitting or set(stored) - set(fitting):
        raise BadInput(
            f"the experiment holds runs of {'; '.join(sorted(stored))}; the cluster's nodes are "
            f"{'; '.join(sorted(processors))}, whose figures are not comparable digit by digit; "
            "choose another --experiment, or --mix-fingerprints"
        )
    chosen = max(sorted(fitting), key=lambda name: processors[name])
    if len(processors) == 1:
        return Alike(chosen, None)
    taken = [node.id for node in nodes if node.fingerprint == chosen]
    return Alike(chosen, taken, _left_out(nodes, chosen))


def _left_out(nodes: Sequence[Node], chosen: str) -> str:
    """Which nodes get no trials, and why."""
    others = [node for node in nodes if node.fingerprint != chosen]
    listed = "; ".join(f"{node.address} is {node.fingerprint}" for node in others)
    taken = len(nodes) - len(others)
    return (
        f"trials run on {taken} of {len(nodes)} nodes, those of {chosen}; figures of the others are"
        f" not comparable digit by digit: {listed}; --mix-fingerprints takes all"
    )
