"""What an experiment costs: seconds by phase and the peak memory of a defense. Costs stand beside
the metrics, never among them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # only a device that torch has already found needs it
    import torch

SECONDS, MEMORY = "time/", "memory/"  # times add up, of memory the largest counts
MIB = 1024 * 1024
RESET_PEAK = "5"  # proc(5), clear_refs: sets the peak resident set size to the present one


def add(so_far: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """Both together.

    >>> add({"time/train_s": 1.0, "memory/aggregate_mib": 30.0}, {"time/train_s": 2.0, "memory/aggregate_mib": 20.0})
    {'time/train_s': 3.0, 'memory/aggregate_mib': 30.0}
    """
    found = dict(so_far)
    for name, value in more.items():
        old = found.get(name, 0.0)
        found[name] = max(old, value) if name.startswith(MEMORY) else old + value
    return found


def totals(costs: Mapping[str, float]) -> dict[str, float]:
    """The names under which a whole run's costs are stored: ``time/total_train_s``,
    ``memory/peak_aggregate_mib``.
    """
    return {
        (
            f"{MEMORY}peak_{name.removeprefix(MEMORY)}"
            if name.startswith(MEMORY)
            else f"{SECONDS}total_{name.removeprefix(SECONDS)}"
        ): value
        for name, value in costs.items()
    }


def phase_name(total: str) -> str:
    """The name that :func:`totals` made another of.

    >>> phase_name("time/total_train_s"), phase_name("memory/peak_aggregate_mib")
    ('time/train_s', 'memory/aggregate_mib')
    """
    kind, _, name = total.partition("/")
    return f"{kind}/{name.removeprefix('total_').removeprefix('peak_')}"


@contextmanager
def measured(
    phase: str, device: torch.device, into: dict[str, float], *, memory: bool = False
) -> Iterator[None]:
    """Add a phase's seconds to ``into``, and the most memory (MiB) it held at once beyond what was
    there before.

    On a CPU that is the growth of the peak resident set, where the system lets a process reset it:
    pages that the allocator had kept from before are not counted, so it is a lower bound for small
    phases.
    """
    before = _start(device) if memory else None
    started = time.perf_counter()
    yield
    found = {f"{SECONDS}{phase}_s": time.perf_counter() - started}
    if before is not None:
        found[f"{MEMORY}{phase}_mib"] = max(_peak(device) - before, 0) / MIB
    into |= add(into, found)


def _start(device: torch.device) -> int | None:
    """Reset the peak; the bytes held now, or None where this cannot be told."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="ascii")
    except OSError:
        return None
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
