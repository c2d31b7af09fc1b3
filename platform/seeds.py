"""Random streams with names: every draw comes from a generator named by its path, so no draw
depends on the order of others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

STREAMS = 1 << 63  # how many there are


def stream(seed: int, *path: str | int) -> int:
    """A 63-bit seed: the first bytes of the sha256 of the named coordinates.

    >>> stream(0, "cohort", 3) == stream(0, "cohort", 3)
    True
    >>> stream(0, "cohort", 3) == stream(0, "cohort", 4)
    False
    """
    name = "/".join(f"{type(part).__name__}:{part}" for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def chance(seed: int, *path: str | int) -> float:
    """A draw from [0, 1) of the named stream, where one number is all that is wanted of it.

    >>> 0 <= chance(0, "answer", 3, 5) < 1
    True
    """
    return stream(seed, *path) / STREAMS


def generator(seed: int, *path: str | int) -> torch.Generator:
    """A CPU generator of its own for the named stream.

    Named by (seed, what, round, client), never by attack or defense: all defenses of one seed face
    the same draws.
    """
    return torch.Generator().manual_seed(stream(seed, *path))


@contextmanager
def seeded(seed: int, *path: str | int) -> Iterator[None]:
    """Run code that can only draw from torch's own CPU generator (module constructors) on the named
    stream.

    The generator's state is put back afterwards, so nothing outside sees a difference.
    """
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(stream(seed, *path))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
