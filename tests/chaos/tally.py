"""What has happened in all series together, as a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.chaos.disturbances import KINDS, Disturbance

VARIABLE = "BACKSTOP_CHAOS_TABLE"  # a file for the table


class Tally:
    """Kinds and numbers."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.series: list[str] = []  # those that ended as they should
        self.commands = 0

    def add(self, series: str, commands: int, happened: Iterable[Disturbance]) -> None:
        """A series has ended, and what has to hold has held."""
        self.series.append(series)
        self.commands += commands
        self.kinds.update(disturbance.kind for disturbance in happened)

    @property
    def total(self) -> int:
        return sum(self.kinds.values())

    def text(self) -> str:
        """The table, as Markdown."""
        rows = [f"| {kind} | {self.kinds[kind]} |" for kind in KINDS if self.kinds[kind]]
        head = ["| disturbance | number |", "| :--- | ---: |"]
        end = [
            f"| all of {len(self.series)} sweeps, {self.commands} commands | {self.total} |",
            "",
            f"series: {', '.join(self.series)}",
            "",
        ]
        return "\n".join([*head, *rows, *end])

    def write(self) -> None:
        """Write the table where the environment says."""
        if given := os.environ.get(VARIABLE):
            Path(given).write_text(self.text(), encoding="utf-8")
