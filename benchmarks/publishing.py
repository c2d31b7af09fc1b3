"""Copies leaderboards from a store to docs/results/, each with its picture; the document, in which
the runs are, as gzip has it: a tenth of its size.

python benchmarks/publishing.py STORE SPACE...
"""

from __future__ import annotations

import argparse
import gzip
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backstop.platform.results.leaderboard.reading import load_document
from backstop.platform.results.report import pictures

RESULTS = Path("docs/results")


def publish(
    store: Path,
    space: str,
    *,
    page: bool = False,
) -> Mapping[str, Any]:
    """Copy a leaderboard's files, draw its picture, and return the document. The folder of a suite
    has its name as people write it, suite-laptop-1.
    """
    folder = space.replace("_", "-") if space.startswith("suite_") else space
    source, target = store / "leaderboards" / space, RESULTS / folder
    target.mkdir(parents=True, exist_ok=True)
    for name in ("leaderboard.md", *["leaderboard.html"] * page):
        shutil.copy(source / name, target)
    content = (source / "leaderboard.json").read_bytes()
    packed = target / "leaderboard.json.gz"
    packed.write_bytes(gzip.compress(content, mtime=0))
    document = load_document(packed)
    (target / "leaderboard.png").write_bytes(pictures.ranking_picture(document))
    return document


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Copy leaderboards to docs/results.")
    parser.add_argument("store", type=Path)
    parser.add_argument("spaces", nargs="+", metavar="space")
    parser.add_argument("--page", action="store_true", help="else backstop merge makes it")
    options = parser.parse_args()
    for name in options.spaces:
        publish(options.store, name, page=options.page)
