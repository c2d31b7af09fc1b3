"""How much of the machine other work had while something was measured on it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

OWN_LEAST = 0.9  # of a core for what is measured; with less it was kept waiting
OTHERS_MOST = 0.15  # of all cores with other work: daemons; more slows what runs beside it
LEAST_S = 0.5  # that tell of other work: the system counts in hundredths of a second
IDLE = (3, 4)  # of the first line of proc(5), stat: idle, and waiting for a disk
COUNTED = 8  # of its columns; what guests have is in them already


class Clocks(NamedTuple):
    """The clocks of a process and of its machine at one moment, in seconds."""

    wall: float
    own: float  # of processors, by this process
    every: float | None  # of processors, by all processes; None where the system does not tell


class OtherWork(NamedTuple):
    """Seconds between two moments."""

    wall_s: float = 0.0
    own_s: float | None = 0.0  # of processors; None: what was measured waits for a GPU
    others_s: float | None = 0.0  # of processors, by all other processes; None: not known
    cores: int = 1  # that the machine has

    @property
    def own_share(self) -> float | None:
        """Of a core, what was measured had of it; None where that is not known."""
        return self.own_s / self.wall_s if self.own_s is not None and self.wall_s else None

    @property
    def other_cores(self) -> float | None:
        """Cores that other work kept busy; None where that is not known."""
        if self.others_s is None or self.wall_s < LEAST_S:
            return None
        return self.others_s / self.wall_s

    @property
    def words(self) -> str:
        """What it was measured beside; empty where the machine was as good as idle.

        >>> OtherWork(10.0, 6.2, 17.0, 2).words
        'it had 62 % of a core, and other work kept 1.7 of 2 cores busy'
        >>> OtherWork(10.0, 9.9, 0.5, 2).words
        ''
        """
        own, others = self.own_share, self.other_cores
        waited = own is not None and own < OWN_LEAST
        beside = others is not None and others > OTHERS_MOST * self.cores
        parts = [f"it had {100 * own:.0f} % of a core"] if waited and own is not None else []
        if others is not None and (waited or beside):
            parts.append(f"other work kept {others:.1f} of {self.cores} cores busy")
        return ", and ".join(parts)


def read_clocks() -> Clocks:
    """The clocks now."""
    return Clocks(time.perf_counter(), time.process_time(), _every_process())


def _every_process() -> float | None:
    with suppress(OSError, ValueError, IndexError):
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
        ticks = [int(word) for word in line.split()[1 : 1 + COUNTED]]
        worked = sum(ticks) - sum(ticks[column] for column in IDLE)
        return worked / float(os.sysconf("SC_CLK_TCK"))
    return None


def between(
    before: Clocks,
    after: Clocks,
    *,
    on_gpu: bool = False,
) -> OtherWork:
    """What there was between two readings in one process."""
    own = after.own - before.own
    others = None
    if before.every is not None and after.every is not None:
        others = max(0.0, after.every - before.every - own)
    wall = after.wall - before.wall
    return OtherWork(wall, None if on_gpu else own, others, os.cpu_count() or 1)


def together(each: Iterable[OtherWork]) -> OtherWork:
    """Several stretches of time as one; a second of which nobody knows makes the sum unknown.

    >>> together([OtherWork(1.0, 1.0, 0.5, 2), OtherWork(3.0, 1.0, None, 2)])
    OtherWork(wall_s=4.0, own_s=2.0, others_s=None, cores=2)
    """
    total = OtherWork()
    for item in each:
        total = OtherWork(
            total.wall_s + item.wall_s,
            _sum(total.own_s, item.own_s),
            _sum(total.others_s, item.others_s),
            item.cores,
        )
    return total


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
