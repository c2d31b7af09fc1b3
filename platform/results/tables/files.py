"""The files of a leaderboard but for its page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from backstop.platform.results.figures.names import Json
from backstop.platform.results.leaderboard.document import encode_document, write_text
from backstop.platform.results.tables.frames import Timed, leaderboard_csv, runs_csv
from backstop.platform.results.tables.latex import latex
from backstop.platform.results.tables.markdown import markdown
from backstop.platform.results.tables.parquet import can_write_parquet, write_parquet


def write_leaderboard(
    document: Json,
    runs: Iterable[Timed],
    folder: Path,
) -> list[Path]:
    """Write leaderboard.json, .csv, .md and .tex, and runs.csv; ``runs`` are the document's. Where
    pyarrow is installed, leaderboard.parquet and cells.parquet too.

    Raises BadInput when the folder cannot be written.
    """
    contents: dict[str, Callable[[], str]] = {
        "leaderboard.json": lambda: encode_document(document),
        "leaderboard.csv": lambda: leaderboard_csv(document),
        "leaderboard.md": lambda: markdown(document),
        "leaderboard.tex": lambda: latex(document),
        "runs.csv": lambda: runs_csv(document, runs),
    }
    files = [write_text(folder / name, content()) for name, content in contents.items()]
    return files + (write_parquet(document, folder) if can_write_parquet() else [])
