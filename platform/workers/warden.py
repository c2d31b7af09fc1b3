"""A process beside another one that ends it once it takes too long or grows too large.

It stands outside, because code that holds the interpreter's lock stops all threads of its own
process. It is run as ``python -I -S warden.py PID`` by the process to be watched and reads orders
on its standard input, a JSON object a line: ``seconds`` and ``bytes`` that are allowed from now on,
either of them null, the ``words`` for going beyond each, and the ``log`` that takes them; an empty
object is rest. It ends with its parent.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOOKS_S = 0.2  # seconds between two looks
DUMP_S = 0.5  # seconds for the process to write where it is, before it is ended
BEYOND = "limit: "  # before the reason in the log
GIB = 2**30


def private_bytes(pid: int) -> int:
    """Memory that a process has for itself, in main memory or swapped out. Raises OSError.

    What it shares, such as Ray's object store and files, does not count.
    """
    total = 0
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in {"RssAnon", "VmSwap"}:
            total += int(value.split()[0]) * 1024
    return total


def excess(pid: int, order: Mapping[str, Any], began: float) -> str:
    """How the process is beyond what the order allows, in words; empty where it is not."""
    words: Mapping[str, str] = order["words"]
    if order["seconds"] is not None and time.monotonic() - began > order["seconds"]:
        return words["seconds"]
    if order["bytes"] is None:
        return ""
    used = private_bytes(pid)
    return words["bytes"].format(used / GIB) if used > order["bytes"] else ""


def end(pid: int, log: str, reason: str) -> None:
    """Write the reason, let the process say where it is, and end it."""
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{BEYOND}{reason}\n")
    os.kill(pid, signal.SIGUSR2)
    time.sleep(DUMP_S)
    os.kill(pid, signal.SIGKILL)


def watch(pid: int) -> None:
    """Follow orders until the process is gone."""
    text, order, began = b"", dict[str, Any](), 0.0
    while os.getppid() == pid:
        ready, _, _ = select.select([0], [], [], LOOKS_S if order else 10 * LOOKS_S)
        if ready:
            read = os.read(0, 2**16)
            if not read:
                return
            *lines, text = (text + read).split(b"\n")
            if lines:
                order, began = json.loads(lines[-1]), time.monotonic()
        if order and (reason := excess(pid, order, began)):
            end(pid, order["log"], reason)
            return


if __name__ == "__main__":
    watch(int(sys.argv[1]))
