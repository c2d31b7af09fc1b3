"""A board as a folder of results holds it: its document, and of its runs what else ``runs.csv``
says.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from backstop.platform.params import BadInput
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.leaderboard.reading import document_file, load_document
from backstop.platform.results.leaderboard.verification import logged_runs
from backstop.platform.results.tracking.log import TOTALS
from backstop.platform.results.tracking.runs import Run

Row = Mapping[str, str]  # a line of runs.csv


class Published(NamedTuple):
    """A leaderboard, and the runs that it was made of."""

    name: str  # where it was read
    document: Document
    runs: list[Run]  # in the document's order

    def only(self, runs: Iterable[Run]) -> Published:
        """The same board with these of its runs; what is worked out from them is not."""
        kept = list(runs)
        ids = {run.id for run in kept}
        entries = [item for item in self.document["runs"] if item["id"] in ids]
        searched = [item for item in self.document["searched"] if ids.issuperset(item["ids"])]
        document = {
            **self.document,
            "runs": entries,
            "searched": searched,
            "missing_runs": [],
        }
        return Published(self.name, document, kept)


def read_published(path: Path) -> Published:
    """The board of a folder, or of a ``leaderboard.json`` and the ``runs.csv`` beside it, where
    there is one. Raises BadInput for what is none.
    """
    file = document_file(path)
    document = load_document(file)
    rows = _rows(file.with_name("runs.csv"))
    return Published(str(path), document, list(_runs(document, rows)))


def _rows(file: Path) -> dict[str, Row]:
    """Spec id → its line of a runs.csv; empty where there is no such file."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return {row["id"]: row for row in csv.DictReader(lines)}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise BadInput(f"{file}: its runs cannot be read ({error!r})") from None


def _runs(document: Document, rows: Mapping[str, Row]) -> Iterator[Run]:
    for entry in logged_runs(document):
        row = rows.get(entry.id, {})
        yield Run(
            id=entry.id,
            run_id=row.get("run_id", ""),
            spec=entry.spec,
            metrics=entry.metrics,
            costs=dict(_costs(entry.id, row)),
            fingerprint=row.get("fingerprint") or document["fingerprint"],
            status="FINISHED",
            curves=entry.curves,
            data=entry.data,
        )


def _costs(run_id: str, row: Row) -> Iterator[tuple[str, float]]:
    """The seconds and the memory of a run, by the names of its metrics."""
    for start in TOTALS:
        phase, _, short = start.partition("/")
        for column in _that_begin(row, short):
            try:
                yield f"{phase}/{column}", float(row[column])
            except ValueError:
                raise BadInput(
                    f"runs.csv, run {run_id[:12]}: {column}={row[column]!r} is no number"
                ) from None


def _that_begin(row: Row, start: str) -> Iterable[str]:
    """The columns of a line that begin so and hold something."""
    return [column for column in row if column.startswith(start) and row[column]]
