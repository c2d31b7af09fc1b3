"""A pattern in place of a path: one file for each client, ``clients/hospital_*.csv``."""

from __future__ import annotations

import re
from pathlib import Path

PATTERN = re.compile(r"[*?]|\[.+\]")
NUMBER = re.compile(r"(\d+)")


def is_pattern(place: Path) -> bool:
    """Whether a path stands for several files; a file that is called so stands for itself."""
    return PATTERN.search(str(place)) is not None and not place.exists()


def matches(place: Path) -> list[Path]:
    """The files that a pattern stands for, numbers in their names in the order of numbers; hidden
    ones are none. Of any other path the one that is there.
    """
    if not is_pattern(place):
        return [place] if place.exists() else []
    start = Path(place.anchor)
    files = start.glob(str(place.relative_to(start)))
    seen = (file for file in files if file.is_file() and not file.name.startswith("."))
    return sorted(seen, key=_natural)


def _natural(file: Path) -> tuple[list[tuple[int, str]], str]:
    """hospital_2 before hospital_10."""
    pieces = NUMBER.split(str(file))
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces], str(file)
