"""The device that an experiment runs on, and what its numbers depend on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from backstop.platform.params import BadInput

if TYPE_CHECKING:
    import torch


def choose_device(name: str = "auto") -> torch.device:
    """The device to compute on; ``auto`` takes a GPU where there is one."""
    check_device(name)
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("device 'cuda' is not available: torch sees no GPU; use --device cpu")
    return torch.device(name)


def check_device(name: str) -> None:
    """Raise BadInput for what names no device, wherever one is."""
    if name not in ("auto", "cpu", "cuda"):
        raise BadInput(f"device {name!r} is not allowed; auto, cpu or cuda")


def fingerprint(where: torch.device) -> str:
    """What besides the spec decides the bytes: the libraries' versions and the kind of device. What
    this package's version changes, the engine or a plug-in, has a number in the spec's id.

    Runs of different ones are not ranked together.
    """
    import torch

    if where.type == "cuda":
        kind = torch.cuda.get_device_name(where)
    else:
        kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    # defenses compute with them
    others = ", ".join(f"{name} {_version(name)}" for name in ("numba", "scikit-learn"))
    return f"torch {torch.__version__}, {others}, {where.type} ({kind})"


@cache  # it is read from a file, and asked for by every experiment
def _version(package: str) -> str:
    """The installed version; a round needs neither, a few defenses do."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
