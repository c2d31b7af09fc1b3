"""Copies leaderboards from a store to docs/results/, each with its picture; the document, in which
the runs are, as gzip has it: a tenth of its size.

python benchmarks/publishing.py STORE SPACE...
"""

from __future__ import annotations

import gzip
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backstop.platform.results.leaderboard.reading import load_document
from backstop.platform.results.report import pictures

RESULTS = Path("docs/results")


def publish(store: Path, space: str) -> Mapping[str, Any]:
    """Copy a leaderboard's files, draw its picture, and return the document."""
    source, target = store / "leaderboards" / space, RESULTS / space
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "leaderboard.md", target)
    content = (source / "leaderboard.json").read_bytes()
    packed = target / "leaderboard.json.gz"  # `backstop merge FOLDER --out` makes the page of it
    packed.write_bytes(gzip.compress(content, mtime=0))
    document = load_document(packed)
    (target / "leaderboard.png").write_bytes(pictures.ranking_picture(document))
    return document


if __name__ == "__main__":
    for name in sys.argv[2:]:
        publish(Path(sys.argv[1]), name)
