"""What this machine has."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from backstop.platform.workers.connection import available
from backstop.platform.workers.sharing import Resources

MEBIBYTE = 1024 * 1024
# Linux: what a container may use, in the second and the first version of control groups
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def machine_resources(device: str) -> Resources:
    """The processors and the memory of this machine, its GPUs where they are computed on."""
    return Resources(
        cpus=available(),
        gpus=torch.cuda.device_count() if device == "cuda" else 0,
        memory_mib=memory_mib(),
        gpu_mib=gpu_mib(device),
    )


def memory_mib() -> float | None:
    """The memory that this machine, or the container that this is, may use; None where the system
    does not say.
    """
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
    return min([whole, *(int(text) for text in map(_read, LIMITS) if text.isdecimal())]) / MEBIBYTE


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def gpu_mib(device: str) -> float | None:
    """The memory of the smallest GPU here; None where they are not computed on."""
    if device != "cuda":
        return None
    count = torch.cuda.device_count()
    sizes = [torch.cuda.get_device_properties(index).total_memory for index in range(count)]
    return min(sizes) / MEBIBYTE if sizes else None
