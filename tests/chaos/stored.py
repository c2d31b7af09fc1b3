"""What a store holds, read from its database and not through the code under test."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

QUERY = """
    SELECT kinds.value, ids.value, runs.status
    FROM runs
    JOIN tags AS kinds ON kinds.run_uuid = runs.run_uuid AND kinds.key = 'backstop.kind'
    LEFT JOIN tags AS ids ON ids.run_uuid = runs.run_uuid AND ids.key = 'backstop.id'
"""


class StoredRun(NamedTuple):
    """A run of MLflow's."""

    kind: str  # trial, sweep, dissent
    spec_id: str | None
    status: str


def stored_runs(database: Path) -> list[StoredRun]:
    """All runs; none where there is no database yet, or none with tables."""
    address = f"file:{database}?mode=ro"
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(address, uri=True, timeout=30)) as opened,
    ):
        return [StoredRun(*row) for row in opened.execute(QUERY)]
    return []


def finished(database: Path) -> int:
    """How many trials are finished."""
    trials = [run for run in stored_runs(database) if run.kind == "trial"]
    return sum(run.status == "FINISHED" for run in trials)
