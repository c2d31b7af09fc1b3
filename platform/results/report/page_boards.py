"""The tables of the page that rank: over all settings, for each, and under untargeted attacks.

A defense has one number on the page, by which its lines in all tables share what they open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.report.details import Detail
from backstop.platform.results.report.measures import measure_of
from backstop.platform.results.tables.columns import (
    UNTARGETED_COLUMNS,
    BoardColumn,
    RankedRow,
    columns_in,
    name_rows,
)

COSTS = ("cost_under_attack", "cost_without_attack")


class PageLine(NamedTuple):
    """A line of a board: a row, the number of its defense on the page, and what it opens."""

    number: int
    row: RankedRow
    detail: Detail

    @property
    def needs(self) -> Sequence[str]:
        """What its defense must be given, in words."""
        needs: Sequence[str] = self.row.fields["needs"]
        return needs

    @property
    def year(self) -> int | None:
        """When its newest method was published."""
        return self.detail.year

    @property
    def losses(self) -> str:
        """What the score takes off, as a script reads it: the worst excess and the costs in
        accuracy, under attack and without one; empty where there is no score.
        """
        fields = self.row.fields
        if fields.get("score") is None:
            return ""
        shares = [fields[name] for name in ("worst_excess", *COSTS)]
        return " ".join(str(share["mean"] if share else 0) for share in shares)


class PageBoard(NamedTuple):
    """A table that ranks."""

    setting: str  # empty: over all of them
    title: str
    columns: Sequence[BoardColumn]
    lines: Sequence[PageLine]


def page_rows(document: Document) -> list[RankedRow]:
    """The rows by the numbers of their defenses: the ranking's, and of the untargeted board those
    of defenses that met no other attack.
    """
    rows = document["rows"]
    ranked = {row["defense"] for row in rows}
    others = [row for row in document["untargeted"] if row["defense"] not in ranked]
    return name_rows(document, [*rows, *others])


def page_boards(document: Document, behind: Sequence[Detail]) -> list[PageBoard]:
    """The whole ranking first, then that of each setting where there are several."""
    whole = {
        "setting": "",
        "title": "",
        "rows": document["rows"],
    }
    boards = []
    for board in (whole, *document["boards"]):
        rows = name_rows(document, board["rows"])
        columns = columns_in("page", rows)
        boards.append(PageBoard(board["setting"], board["title"], columns, _lines(rows, behind)))
    return boards


def untargeted_board(document: Document, behind: Sequence[Detail]) -> PageBoard:
    """The board of the attacks that only do damage, which may have no lines."""
    rows = name_rows(document, document["untargeted"])
    return PageBoard("", "Untargeted attacks", UNTARGETED_COLUMNS, _lines(rows, behind))


def _lines(rows: Sequence[RankedRow], behind: Sequence[Detail]) -> list[PageLine]:
    """Lines for rows of a board; ``behind`` is by the numbers of the defenses."""
    numbers: Mapping[str, int] = {
        detail.row.fields["defense"]: number for number, detail in enumerate(behind)
    }
    lines = []
    for row in rows:
        number = numbers[row.fields["defense"]]
        lines.append(PageLine(number, row, behind[number]))
    return lines


def sort_value(column: BoardColumn, value: Any) -> float | str | None:
    """What a script sorts a cell by: a number, nothing where it holds none, None where it is its
    text.
    """
    match column.kind:
        case "chain" | "words":
            return None
        case _ if value is None:
            return ""
        case "figure" | "score":
            return float(value["mean"])
        case "share of chain" | "rank":
            return float(value[0])
        case _:
            return float(value)


def first_direction(column: BoardColumn) -> str:
    """In which direction a first click sorts: names from A on, ranks and what an attack achieves
    from the least on, all else from the most on.
    """
    if column.kind in ("chain", "words", "rank") or measure_of(column.key):
        return "ascending"
    return "descending"
