"""Shared memory of one sweep's own: what others leave in /dev/shm meanwhile says nothing of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import which

EVERYBODYS = Path("/dev/shm")
BEHIND_A_MOUNT = 'mount --bind "$0" /dev/shm && exec "$@"'


@contextmanager
def own_memory(temporary: Path) -> Iterator[Path]:
    """The folder of a file system in memory, beside a temporary folder; everybody's shared memory
    where nothing can be mounted, which takes root.
    """
    folder = temporary.with_name(f"{temporary.name}-memory")
    folder.mkdir()
    try:
        if not _succeeds("mount", "-t", "tmpfs", "tmpfs", str(folder)):
            yield EVERYBODYS
            return
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        folder.rmdir()


def _succeeds(*words: str) -> bool:
    if which(words[0]) is None:
        return False
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def with_memory(memory: Path, command: Sequence[str]) -> list[str]:
    """A command whose shared memory this folder is; it keeps the number of its process."""
    if memory == EVERYBODYS:
        return list(command)
    return ["unshare", "--mount", "sh", "-c", BEHIND_A_MOUNT, str(memory), *command]
