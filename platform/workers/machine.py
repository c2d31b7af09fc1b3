"""What this machine has."""

from __future__ import annotations

import torch

from backstop.platform.workers.connection import available
from backstop.platform.workers.memory import MEBIBYTE, machine_mib
from backstop.platform.workers.sharing import Resources


def machine_resources(device: str) -> Resources:
    """The processors and the memory of this machine, its GPUs where they are computed on."""
    return Resources(
        cpus=available(),
        gpus=torch.cuda.device_count() if device == "cuda" else 0,
        memory_mib=machine_mib(),
        gpu_mib=gpu_mib(device),
    )


def gpu_mib(device: str) -> float | None:
    """The memory of the smallest GPU here; None where they are not computed on."""
    if device != "cuda":
        return None
    count = torch.cuda.device_count()
    sizes = [torch.cuda.get_device_properties(index).total_memory for index in range(count)]
    return min(sizes) / MEBIBYTE if sizes else None
