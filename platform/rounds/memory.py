"""Memory that the C library keeps for a process although nobody uses it any more."""

from __future__ import annotations

import ctypes
import sys

LARGE = 64 * 1024 * 1024  # bytes of a round's rows from which it is worth the time


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
