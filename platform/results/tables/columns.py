"""The leaderboard's columns, once for all of its forms.

A new column is one entry of :data:`COLUMNS`. Each renderer loops over the columns that it shows and
knows how to write each kind of value. The csv and the DataFrame hold every field of the document's
rows, and every column here that is none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from backstop.platform.declarations.facts import NEEDS
from backstop.platform.results.figures.names import ChainName, Json, chain_names, document_chains
from backstop.platform.results.figures.wording import percent, spread
from backstop.platform.results.leaderboard.entries import ABSENT_FIELD

Form = Literal["terminal", "markdown", "page", "latex"]
ColumnKind = Literal[
    "count",  # a whole number, or None
    "rank",  # (rank, first and last rank that are left open), or None
    "share",  # a number from 0 to 1, in percent, or None
    "figure",  # a share over seeds, {"mean", "low", "high", "n", "kind"}, or None
    "score",  # a figure whose mean the page draws as a bar too
    "chain",  # a ChainName, or None
    "share of chain",  # a share and the ChainName that it belongs to, or None
    "words",  # a list of texts
]


class RankedRow(NamedTuple):
    """A row of the document, its chains with their names for people."""

    fields: Json
    defense: ChainName  # marked where a footnote says more
    worst_attack: ChainName | None
    worst_case: ChainName | None = None  # the attack that a search has chosen


class BoardColumn(NamedTuple):
    """One column of the leaderboard."""

    key: str  # its name in the csv and in a DataFrame
    heading: str  # its name for people
    kind: ColumnKind  # of its values: each renderer writes a kind in its own way
    shown_in: tuple[Form, ...]
    alignment: Literal["left", "right"] = "right"
    value: Callable[[RankedRow], Any] | None = None  # None: the document's field of that name
    optional: bool = False  # left out where no row has it

    def of(self, row: RankedRow) -> Any:
        """The column's value in a row."""
        if self.value is None:
            return row.fields[self.key]
        return self.value(row)


def _rank(row: RankedRow) -> tuple[int, int, int] | None:
    fields = row.fields
    if fields["rank"] is None:
        return None
    return fields["rank"], fields["rank_low"], fields["rank_high"]


def _defense(row: RankedRow) -> ChainName:
    return row.defense


def _worst_attack(row: RankedRow) -> ChainName | None:
    return row.worst_attack


def _worst_excess(row: RankedRow) -> tuple[float, ChainName] | None:
    """The worst excess success with the attack that has it."""
    excess = row.fields["worst_excess"]
    if row.worst_attack is None or excess is None:
        return None
    return excess["mean"], row.worst_attack


def _worst_case(row: RankedRow) -> tuple[float, ChainName] | None:
    """The attack success that a search has reached, with its attack."""
    if row.worst_case is None:
        return None
    return row.fields["worst_case_success"]["mean"], row.worst_case


def _accuracy_lost(row: RankedRow) -> Json | None:
    """The larger one of the two costs in accuracy, which the score counts."""
    costs = (row.fields["cost_under_attack"], row.fields["cost_without_attack"])
    known = [cost for cost in costs if cost is not None]
    return max(known, key=lambda cost: float(cost["mean"]), default=None)


ALL: tuple[Form, ...] = ("terminal", "markdown", "page", "latex")
NARROW: tuple[Form, ...] = ("terminal", "latex")
WIDE: tuple[Form, ...] = ("markdown", "page")

COLUMNS = (
    BoardColumn("rank", "#", "rank", ALL, value=_rank),
    BoardColumn("defense", "defense", "chain", ALL, "left", _defense),
    BoardColumn("score", "score", "score", ALL),
    BoardColumn("worst_excess", "worst excess", "figure", NARROW),
    BoardColumn("worst_attack", "worst excess", "share of chain", WIDE, "left", _worst_excess),
    BoardColumn("worst_case_attack", "searched", "share of chain", WIDE, "left", _worst_case, True),
    BoardColumn("excess_success", "mean excess", "figure", WIDE),
    BoardColumn("accuracy_lost", "accuracy cost", "figure", NARROW, value=_accuracy_lost),
    BoardColumn("cost_under_attack", "accuracy cost", "figure", WIDE),
    BoardColumn("cost_without_attack", "cost without attack", "figure", WIDE),
    BoardColumn("attack_success_rate", "attack success", "figure", ALL),
    BoardColumn("clean_accuracy", "accuracy", "figure", ALL),
    BoardColumn("robust_accuracy", "robust accuracy", "figure", ("page",)),
    BoardColumn("no_attack_accuracy", "accuracy without attack", "figure", WIDE),
    BoardColumn("learning_retained", "learning retained", "figure", WIDE, optional=True),
    BoardColumn("break_even_share", "breaks at", "share", WIDE, optional=True),
    BoardColumn("der", "DER", "figure", WIDE),
    BoardColumn("needs", "needs", "words", WIDE, "left"),
)

# of the board of attacks that define no success
UNTARGETED_COLUMNS = (
    BoardColumn("rank", "#", "rank", ALL, value=_rank),
    BoardColumn("defense", "defense", "chain", ALL, "left", _defense),
    BoardColumn("worst_accuracy_lost", "worst accuracy lost", "figure", ALL),
    BoardColumn("worst_attack", "under", "chain", ALL, "left", _worst_attack),
    BoardColumn("accuracy_lost", "mean accuracy lost", "figure", ALL),
    BoardColumn("clean_accuracy", "accuracy", "figure", ALL),
    BoardColumn("no_attack_accuracy", "accuracy without attack", "figure", ALL),
)


def columns_in(form: Form, rows: Sequence[RankedRow] = ()) -> list[BoardColumn]:
    """The columns that a form shows of these rows, in order."""
    return [
        column
        for column in COLUMNS
        if form in column.shown_in and (not column.optional or _has_values(column, rows))
    ]


def _has_values(column: BoardColumn, rows: Sequence[RankedRow]) -> bool:
    return any(column.of(row) is not None for row in rows)


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
        case "rank":
            return rank_text(*value)
        case "share":
            return percent(value)
        case "figure" | "score":
            return figure_text(value)
        case "share of chain":
            share, name = value
            return f"{percent(share)} {name}"
        case "words":
            return ", ".join(value) or "–"
        case _:
            return str(value)


def rank_text(
    rank: int,
    low: int,
    high: int,
) -> str:
    """A rank, and the ranks that are left open where there are several.

    >>> rank_text(2, 1, 4), rank_text(1, 1, 1)
    ('2 (1–4)', '1')
    """
    return str(rank) if low == high else f"{rank} ({low}–{high})"


def ranked_rows(document: Json) -> list[RankedRow]:
    """The document's rows in their order, with names of their chains among each other's."""
    return name_rows(document, document["rows"])


def name_rows(document: Json, rows: Sequence[Json]) -> list[RankedRow]:
    """Rows of one of the document's boards, with names of their chains among each other's."""
    chains = document_chains(document)
    defenses = chain_names({row["defense"]: chains[row["defense"]] for row in rows})
    worst = [row.get(field) for row in rows for field in ("worst_attack", "worst_case_attack")]
    attacks = chain_names({attack: chains[attack] for attack in worst if attack})
    named = []
    for row in rows:
        defense = defenses[row["defense"]].marked(footnote_marks(row))
        worst_attack = attacks.get(row["worst_attack"] or "")
        worst_case = attacks.get(row.get("worst_case_attack") or "")
        named.append(RankedRow(row, defense, worst_attack, worst_case))
    return named


def footnote_marks(row: Json) -> str:
    """The marks of a row that is not like the others, which :mod:`notes` explains."""
    return "".join(mark for mark, applies in MARKS.items() if applies(row))


def _chosen_where_reported(row: Json) -> bool:
    """Whether a single seed has chosen the worst attack and tells what it does."""
    worst = row.get("worst_excess")
    return worst is not None and worst["n"] == 1 and len(row["attacks"]) > 1


def _is_told_f(row: Json) -> bool:
    return NEEDS["f"] in row["needs"]


MARKS: Mapping[str, Callable[[Json], bool]] = {
    "†": lambda row: bool(row["missing"]),
    "‡": lambda row: bool(row["diverged"]),
    "§": _is_told_f,
    "¶": _chosen_where_reported,
    "‖": lambda row: bool(row.get(ABSENT_FIELD)),
}
