"""A leaderboard's tables as Parquet, where a library that writes it is installed."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from backstop.platform.results.figures.names import Json
from backstop.platform.results.leaderboard.document import write_bytes
from backstop.platform.results.tables.frames import cells_frame, leaderboard_frame

LIBRARY: Literal["pyarrow"] = "pyarrow"  # MLflow brings it


def can_write_parquet() -> bool:
    """Whether the library is installed."""
    return find_spec(LIBRARY) is not None


def write_parquet(document: Json, folder: Path) -> list[Path]:
    """Write leaderboard.parquet and cells.parquet: the frames, with types and without rounding."""
    frames = {
        "leaderboard.parquet": leaderboard_frame(document),
        "cells.parquet": cells_frame(document),
    }
    files = []
    for name, frame in frames.items():
        content = io.BytesIO()
        frame.to_parquet(content, engine=LIBRARY, index=False)
        files.append(write_bytes(folder / name, content.getvalue()))
    return files
