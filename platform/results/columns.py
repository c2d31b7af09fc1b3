"""The leaderboard's columns, once for all of its forms.

A new column is one entry of :data:`COLUMNS`. Each renderer loops over the columns that it shows and
knows how to write each kind of value. The csv and the DataFrame hold every field of the document's
rows, and every column here that is none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from backstop.platform.results.names import ChainName, Json, chain_names, document_chains
from backstop.platform.results.wording import percent, spread

Form = Literal["terminal", "markdown", "page", "latex"]
ColumnKind = Literal[
    "count",  # a whole number
    "share",  # a number from 0 to 1, in percent, or None
    "score",  # a share that the page draws as a bar too
    "figure",  # a share with its interval, {"mean", "low", "high"}, or None
    "chain",  # a ChainName, or None
    "share of chain",  # a share and the ChainName that it belongs to, or None
    "words",  # a list of texts
]


class RankedRow(NamedTuple):
    """A row of the document, its chains with their names for people."""

    fields: Json
    defense: ChainName  # marked where a footnote says more
    worst_attack: ChainName | None


class BoardColumn(NamedTuple):
    """One column of the leaderboard."""

    key: str  # its name in the csv and in a DataFrame
    heading: str  # its name for people
    kind: ColumnKind  # of its values: each renderer writes a kind in its own way
    shown_in: tuple[Form, ...]
    alignment: Literal["left", "right"] = "right"
    value: Callable[[RankedRow], Any] | None = None  # None: the document's field of that name

    def of(self, row: RankedRow) -> Any:
        """The column's value in a row."""
        if self.value is None:
            return row.fields[self.key]
        return self.value(row)


def _defense(row: RankedRow) -> ChainName:
    return row.defense


def _worst_attack(row: RankedRow) -> ChainName | None:
    return row.worst_attack


def _worst_success(row: RankedRow) -> tuple[float, ChainName] | None:
    if row.worst_attack is None:
        return None
    return row.fields["worst_attack_success_rate"], row.worst_attack


ALL: tuple[Form, ...] = ("terminal", "markdown", "page", "latex")
NARROW: tuple[Form, ...] = ("terminal", "latex")
WIDE: tuple[Form, ...] = ("markdown", "page")

COLUMNS = (
    BoardColumn("rank", "#", "count", ALL),
    BoardColumn("defense", "defense", "chain", ALL, "left", _defense),
    BoardColumn("der", "DER", "score", ALL),
    BoardColumn("clean_accuracy", "accuracy", "figure", ALL),
    BoardColumn("attack_success_rate", "attack success", "figure", ALL),
    BoardColumn("robust_accuracy", "robust accuracy", "figure", ("page",)),
    BoardColumn("no_attack_accuracy", "accuracy without attack", "figure", WIDE),
    BoardColumn("worst_attack_success_rate", "worst", "share", NARROW),
    BoardColumn("worst_attack", "under", "chain", NARROW, "left", _worst_attack),
    BoardColumn("worst_attack", "worst attack", "share of chain", WIDE, "left", _worst_success),
    BoardColumn("needs", "needs", "words", WIDE, "left"),
)


def columns_in(form: Form) -> list[BoardColumn]:
    """The columns that a form shows, in order."""
    return [column for column in COLUMNS if form in column.shown_in]


def derived_columns(row: RankedRow) -> list[BoardColumn]:
    """The columns that are worked out of the document's fields, in order."""
    return [column for column in COLUMNS if column.key not in row.fields]


def cell_text(
    column: BoardColumn,
    row: RankedRow,
    figure_text: Callable[[Mapping[str, float]], str] = spread,
) -> str:
    """A cell as plain text, a dash where there is nothing; a figure with its interval as told."""
    value = column.of(row)
    if value is None:
        return "–"
    match column.kind:
        case "share" | "score":
            return percent(value)
        case "figure":
            return figure_text(value)
        case "share of chain":
            share, name = value
            return f"{percent(share)} {name}"
        case "words":
            return ", ".join(value) or "–"
        case _:
            return str(value)


def ranked_rows(document: Json) -> list[RankedRow]:
    """The document's rows by rank, with names of their chains among each other's."""
    rows = document["rows"]
    chains = document_chains(document)
    defenses = chain_names({row["defense"]: chains[row["defense"]] for row in rows})
    worst = {row["worst_attack"] for row in rows} - {None}
    attacks = chain_names({attack: chains[attack] for attack in worst})
    named = []
    for row in rows:
        defense = defenses[row["defense"]].marked(footnote_marks(row))
        worst_attack = attacks.get(row["worst_attack"])
        named.append(RankedRow(row, defense, worst_attack))
    return named


def footnote_marks(row: Json) -> str:
    """The marks of a row that is not like the others: † lacks attacks that others have, ‡ holds
    diverged runs.
    """
    marks = ""
    if row["missing"]:
        marks += "†"
    if row["diverged"]:
        marks += "‡"
    return marks
