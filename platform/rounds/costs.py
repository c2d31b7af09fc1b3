"""What an experiment costs: seconds by phase and the peak memory of a defense.

Costs stand beside the metrics, never among them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # only a device that torch knows already needs it
    import torch

SECONDS, MEMORY = "time/", "memory/"  # times add up, of memory the largest counts
MIB = 1024 * 1024
RESET_PEAK = "5"  # proc(5), clear_refs: sets the peak resident set size to the present one


def add(so_far: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """Both together.

    >>> first = {"time/train_s": 1.0, "memory/aggregate_mib": 30.0}
    >>> add(first, {"time/train_s": 2.0, "memory/aggregate_mib": 20.0})
    {'time/train_s': 3.0, 'memory/aggregate_mib': 30.0}
    """
    both = dict(so_far)
    for name, value in more.items():
        old = both.get(name, 0.0)
        both[name] = max(old, value) if name.startswith(MEMORY) else old + value
    return both


def totals(costs: Mapping[str, float]) -> dict[str, float]:
    """A whole run's costs under the names that they are stored by.

    >>> totals({"time/train_s": 3.0, "memory/aggregate_mib": 30.0})
    {'time/total_train_s': 3.0, 'memory/peak_aggregate_mib': 30.0}
    """
    stored = {}
    for name, value in costs.items():
        kind, _, phase = name.partition("/")
        word = "peak" if name.startswith(MEMORY) else "total"
        stored[f"{kind}/{word}_{phase}"] = value
    return stored


def phase_name(total: str) -> str:
    """The name that :func:`totals` made another of.

    >>> phase_name("time/total_train_s"), phase_name("memory/peak_aggregate_mib")
    ('time/train_s', 'memory/aggregate_mib')
    """
    kind, _, name = total.partition("/")
    return f"{kind}/{name.removeprefix('total_').removeprefix('peak_')}"


@contextmanager
def measured(
    phase: str,
    device: torch.device,
    into: dict[str, float],
    *,
    memory: bool = False,
) -> Iterator[None]:
    """Add a phase's seconds to ``into``, and the most memory (MiB) that it held at once.

    Memory is what the phase held beyond what was there before. On a CPU that is the growth of the
    peak resident set, where the system lets a process reset it. Pages that the process had kept
    from before are not counted: whoever wants all of them has them given back first.

    A GPU works behind the calls, so the clock waits until it has done what it was given. Seconds of
    a phase within another one are its own alone.
    """
    before = _start(device) if memory else None
    _settle(device)
    others = _seconds(into)
    started = time.perf_counter()
    yield
    _settle(device)
    spent = time.perf_counter() - started
    costs = {f"{SECONDS}{phase}_s": spent - (_seconds(into) - others)}
    if before is not None:
        costs[f"{MEMORY}{phase}_mib"] = max(peak(device) - before, 0) / MIB
    into |= add(into, costs)


def _seconds(costs: Mapping[str, float]) -> float:
    """Seconds of all phases."""
    return sum(value for name, value in costs.items() if name.startswith(SECONDS))


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


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
    return peak(device)


def peak(device: torch.device) -> int:
    """The most bytes that were held since the peak was last reset."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
