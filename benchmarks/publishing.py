"""Copies leaderboards from a store to docs/results/, each with its picture.

python benchmarks/publishing.py STORE SPACE...
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backstop.platform.results.leaderboard.reading import load_document
from backstop.platform.results.report import pictures

RESULTS = Path("docs/results")
SUFFIXES = ("json", "md")  # `backstop merge FOLDER --out` makes the page of them


def publish(store: Path, space: str) -> Mapping[str, Any]:
    """Copy a leaderboard's files, draw its picture, and return the document."""
    source, target = store / "leaderboards" / space, RESULTS / space
    target.mkdir(parents=True, exist_ok=True)
    for suffix in SUFFIXES:
        shutil.copy(source / f"leaderboard.{suffix}", target)
    document = load_document(target / "leaderboard.json")
    (target / "leaderboard.png").write_bytes(pictures.ranking_picture(document))
    return document


if __name__ == "__main__":
    for name in sys.argv[2:]:
        publish(Path(sys.argv[1]), name)
