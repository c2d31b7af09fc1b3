"""File systems that tests make and break: small disks, folders that can only be read."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def mounted(*words: str) -> Iterator[None]:
    """A mount while the block lasts."""
    done = (
        subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
        if shutil.which("mount")
        else None
    )
    if done is None or done.returncode:
        pytest.skip(
            "nothing can be mounted here, which takes root: "
            f"{done.stderr.strip() if done else 'no mount'}"
        )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", words[-1]], check=True)
