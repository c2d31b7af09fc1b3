"""Memory: how much there is, and what the C library keeps of it for a process that does not use it
at the moment.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path

FREE_KEPT = 128 * 1024 * 1024  # bytes of free memory that a process keeps for its next round
TENSOR_KEPT = 32 * 1024 * 1024  # bytes of a tensor up to which its memory is kept so
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGE = 64 * 1024 * 1024  # bytes of a round's rows from which it is worth the time
MEBIBYTE = 1024 * 1024
# Linux: what a container may use, in the second and the first version of control groups
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def machine_mib() -> float | None:
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


def give_back() -> None:
    """Give free pages back to the system, where the C library can (glibc).

    A large model's local training leaves about as much as the round's rows have, and the largest
    needs of a round would come on top of that. It takes some hundredths of a second.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def keep_free_memory() -> None:
    """Let this process keep what it frees, up to FREE_KEPT, where the C library can (glibc).

    A round frees what the next one asks for again. By default all but some MB of it goes back to
    the system each time, whose new pages are filled with zeros and mapped one by one: a fifth of a
    round of a model with 40,000 parameters.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, FREE_KEPT)
        mallopt(M_MMAP_THRESHOLD, TENSOR_KEPT)
