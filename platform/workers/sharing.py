"""How a cluster's processors and memory are shared among trials: functions of what there is, of how
many trials there are, and of what one has shown. Nothing here looks at a Ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from backstop.platform.workers.actors import ActorShare, OnActors
from backstop.platform.workers.clients import Clients, InProcess
from backstop.platform.workers.limits import Limits

MOST_THREADS = 8  # of one process: more would wait for the interpreter's lock
# Of a round on client actors, beside training: one call and its answer, and what the rows of all
# clients take to and from the object store (docs/decisions/0004-numpy-transport.md).
CALL_S = 0.0015
MIB_PER_S = 750.0
GAIN = 1.25  # times as fast that client actors must be: each holds a federation of its own
USABLE = 0.9  # of a memory; the rest is for what nobody has measured
GPU_SHARES = 10_000  # Ray counts GPUs in ten-thousandths


class Resources(NamedTuple):
    """What a cluster has."""

    cpus: float
    gpus: float = 0.0
    largest_node: float | None = None  # its CPUs; None: one node has all
    memory_mib: float | None = None  # of all nodes; None: not known
    gpu_mib: float | None = None  # of one GPU


class Load(NamedTuple):
    """What a trial has shown in a few rounds on one thread."""

    train_s: float  # local training of a round
    blocks: int  # of clients, which can be trained side by side
    sent_mib: float  # the rows of a round, as client actors would send them
    mib: float  # the most that its process held
    gpu_mib: float = 0.0  # the same of its GPU


class TrialWorkers(NamedTuple):
    """Who trains the clients of a trial: its own process on some threads, or client actors."""

    actors: int  # 0: its own process
    threads: int  # of its own process
    share: ActorShare  # what one actor, or the process, takes of its node
    reason: str = ""  # why it is so
    limits: Limits = Limits()

    @property
    def bundles(self) -> list[dict[str, float]]:
        """The resources of a trial as Ray places them: its driver's, then those of each actor."""
        gpus = {"GPU": self.share.gpus} if self.share.gpus else {}
        if not self.actors:
            return [{"CPU": float(self.threads)} | gpus]
        return [{}, *[{"CPU": self.share.cpus} | gpus] * self.actors]

    @property
    def words(self) -> str:
        """Who trains, for people."""
        if self.actors:
            return f"{self.actors} client actors for each trial"
        threads = f"{self.threads} threads" if self.threads > 1 else "one thread"
        share = f" and {self.share.gpus:.2g} of a GPU" if self.share.gpus else ""
        return f"{threads}{share} for each trial"

    def clients(self, device: str) -> Clients:
        """The workers themselves."""
        if self.actors:
            return OnActors(
                self.actors,
                device=device,
                share=self.share,
                limits=self.limits,
            )
        return InProcess(self.threads)


def share_processors(
    actors: str | int,
    trials: int,
    have: Resources,
    device: str,
    load: Load | None = None,
) -> TrialWorkers:
    """How many client actors or threads a trial gets, and what each takes.

    Whole trials go to cores, or to shares of a GPU that hold them, while there are many. Where
    cores are left over, a trial's own process uses them on several threads. ``auto`` takes client
    actors where more are left over than one process can use, and a GPU each where several are,
    unless the ``load`` says that they would be slower. More actors than cores share them.
    """
    if device == "cuda":
        spread, share, reason = _on_gpus(actors, max(trials, 1), have, load)
        return TrialWorkers(spread, 1, share, reason)
    return _on_cores(actors, max(trials, 1), have, load)


def _on_cores(
    actors: str | int,
    trials: int,
    have: Resources,
    load: Load | None,
) -> TrialWorkers:
    spare = max(1, int(have.cpus // trials))
    threads = min(spare, MOST_THREADS, int(have.largest_node or have.cpus) or 1)
    if actors != "auto":
        count, reason = int(actors), "as asked"
    elif spare <= threads:
        count, reason = 0, _why_threads(threads)
    else:
        count, reason = _worthwhile(spare, threads, load)
    if not count:
        return TrialWorkers(0, threads, ActorShare(), reason)
    share = ActorShare(cpus=min(1.0, have.cpus / count))
    return TrialWorkers(count, 1, share, reason)


def _why_threads(threads: int) -> str:
    if threads == 1:
        return "no more cores than trials"
    return f"one process can use the {threads} cores that a trial has"


def _on_gpus(
    actors: str | int,
    trials: int,
    have: Resources,
    load: Load | None,
) -> tuple[int, ActorShare, str]:
    """Client actors, what each takes, and why. A process works with one GPU at most."""
    spare = int(have.gpus // trials)
    if actors != "auto":
        count, reason = int(actors), "as asked"
    elif spare > 1:
        count, reason = _worthwhile(spare, 1, load)
    else:
        count, reason = 0, "no more GPUs than trials"
    if count:
        cpus = min(1.0, have.cpus / count)
        return count, ActorShare(cpus, min(1.0, have.gpus / count)), reason
    together = trials_per_gpu(trials, have, load)
    share = math.floor(GPU_SHARES / together) / GPU_SHARES
    return 0, ActorShare(1.0, share), reason


def trials_per_gpu(
    trials: int,
    have: Resources,
    load: Load | None,
) -> int:
    """Trials that share one GPU: as many as its memory holds, but no more than there are, nor than
    there are cores for them. One where the memory of a trial or of a GPU is not known.
    """
    if load is None or have.gpu_mib is None or load.gpu_mib <= 0 or have.gpus < 1:
        return 1
    held = int(USABLE * have.gpu_mib / load.gpu_mib)
    there = math.ceil(trials / have.gpus)
    return max(1, min(held, there, int(have.cpus / have.gpus)))


def _worthwhile(
    actors: int,
    threads: int,
    load: Load | None,
) -> tuple[int, str]:
    """So many actors where they are worth it, else none; and why."""
    if load is None:
        return actors, f"one process can use {threads} of {actors}; a round was not measured"
    alone, spread = round_seconds(load, 0, threads), round_seconds(load, actors, threads)
    own = "one thread" if threads == 1 else f"{threads} threads of one process"
    compared = f"a round takes {alone:.2g} s on {own}, {spread:.2g} s on {actors} client actors"
    return (actors if alone >= GAIN * spread else 0), compared


def hangs_on_load(
    actors: str | int,
    trials: int,
    have: Resources,
    device: str,
) -> bool:
    """Whether what a trial takes decides how it is spread: whether actors are worth it, or how many
    trials one GPU holds.
    """
    spare = (have.gpus if device == "cuda" else have.cpus) // max(trials, 1)
    if device == "cuda":
        return (actors == "auto" and spare > 1) or (actors in ("auto", 0) and spare < 1)
    threads = min(MOST_THREADS, int(have.largest_node or have.cpus))
    return actors == "auto" and spare > threads


def round_seconds(
    load: Load,
    actors: int,
    threads: int,
) -> float:
    """What the local training of a round takes on client actors, or on threads of one process."""
    waves = math.ceil(load.blocks / max(1, actors or threads))
    training = load.train_s * waves / max(1, load.blocks)
    if not actors:
        return training
    return training + CALL_S * load.blocks + load.sent_mib / MIB_PER_S


def slots(
    workers: TrialWorkers,
    have: Mapping[str, float],
) -> int:
    """Trials that fit on so much of each kind (CPU, GPU) at a time, at least one."""
    need: dict[str, float] = {}
    for bundle in workers.bundles:
        for kind, amount in bundle.items():
            need[kind] = need.get(kind, 0.0) + amount
    # a sum of thirds may come out a bit too large
    fitting = [int(have.get(kind, 0.0) / amount + 1e-9) for kind, amount in need.items()]
    return max(1, min(fitting))


def held(
    workers: TrialWorkers,
    have: Resources,
    load: Load | None,
) -> int | None:
    """Trials whose processes the memory of all nodes holds, at least one; None where nothing is
    known of it.
    """
    if load is None or have.memory_mib is None:
        return None
    processes = 1 + workers.actors
    return max(1, int(USABLE * have.memory_mib / (load.mib * processes)))
