"""A small disk for a store, which fills up, or can only be read for a while."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.mounts import mounted

SIZE = "48m"
BLOCK = 4096
BUSY_S = 60.0


class Disk:
    """A file system of its own in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"

    def fill(self) -> None:
        """Leave no room."""
        with suppress(OSError), self.filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(BLOCK))

    def empty(self) -> None:
        """There is room again."""
        self.filler.unlink()

    def only_read(self) -> None:
        """Nothing can be written; nobody may have a file open for that."""
        self._remount("ro")

    def write_again(self) -> None:
        self._remount("rw")

    def _remount(self, how: str) -> None:
        """Mount it otherwise; the last threads of what was just killed may keep it busy."""
        line = ["mount", "-o", f"remount,{how}", str(self.folder)]
        deadline = time.monotonic() + BUSY_S
        while (
            done := subprocess.run(line, capture_output=True, text=True, check=False)
        ).returncode:
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.2)


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A small disk in a folder, which is made; where nothing can be mounted the test is skipped."""
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)):
        yield Disk(folder)
