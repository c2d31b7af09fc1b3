"""The ranking as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from backstop.platform.results.figures.names import ChainName, Json
from backstop.platform.results.figures.wording import margin, mean_alone, plural
from backstop.platform.results.tables.columns import (
    UNTARGETED_COLUMNS,
    BoardColumn,
    RankedRow,
    cell_text,
    columns_in,
    name_rows,
    ranked_rows,
)
from backstop.platform.results.tables.notes import ends_note, footnotes, incomplete
from backstop.platform.specs.part import NOTHING

NAME_WIDTH = 20  # of the defenses' names, at least, where there is room
LONG_CHAIN = 30  # from here on a chain is broken between its stages
GAP = 2  # between two columns


class _Layout(NamedTuple):
    """What there is room for."""

    names: Sequence[Text]
    name_width: int
    columns: Sequence[BoardColumn]


def terminal_table(document: Json, width: int = 100) -> Table:
    """The ranking for a terminal so wide. Where it is narrow the names stay and the last columns
    go, which the caption says.
    """
    rows = ranked_rows(document)
    columns = columns_in("terminal", rows)
    layout = _fit(rows, columns, width)
    hidden = columns[len(layout.columns) :]
    table = _empty_table(_title(document), _caption(document, hidden))
    for column in layout.columns:
        _add_column(table, column, layout.name_width)
    for row, name in zip(rows, layout.names, strict=True):
        cells = [_cell(column, row) for column in layout.columns]
        cells[_defense_index(columns)] = name
        table.add_row(*cells, style=_style(row.fields))
    return table


def untargeted_table(document: Json) -> Table | None:
    """The board of the attacks that define no success; None where there is none."""
    rows = name_rows(document, document["untargeted"])
    if not rows:
        return None
    table = _empty_table(Text("untargeted attacks, by the accuracy that they take"), "in percent")
    for column in UNTARGETED_COLUMNS:
        _add_column(table, column, 0)
    for row in rows:
        cells = [_cell(column, row) for column in UNTARGETED_COLUMNS]
        table.add_row(*cells, style=_style(row.fields))
    return table


def terminal_tables(document: Json, width: int) -> Group:
    """The ranking, and below it the board of untargeted attacks where there is one."""
    untargeted = untargeted_table(document)
    ranking = terminal_table(document, width)
    return Group(ranking) if untargeted is None else Group(ranking, "", untargeted)


def terminal_text(document: Json, width: int) -> str:
    """What :func:`terminal_tables` prints, as text without colors."""
    console = Console(width=width, force_jupyter=False, color_system=None)
    with console.capture() as text:
        console.print(terminal_tables(document, width))
    return text.get().rstrip()


def _empty_table(title: Text, caption: str) -> Table:
    return Table(
        title=title,
        caption=caption,
        box=SIMPLE_HEAD,
        header_style="bold",
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )


def _fit(
    rows: Sequence[RankedRow],
    columns: Sequence[BoardColumn],
    width: int,
) -> _Layout:
    """First the names are broken into short lines, then columns go, the last one first."""
    names = [_name_lines(row.defense) for row in rows]
    name_index = _defense_index(columns)
    widths = [_column_width(column, rows) for column in columns]
    widths[name_index] = NAME_WIDTH
    if _table_width(widths) > width:
        names = [_name_lines(row.defense, narrow=True) for row in rows]
        longest = max((_longest_line(name.plain) for name in names), default=NAME_WIDTH)
        widths[name_index] = min(NAME_WIDTH, longest)
    shown = _shown_count(widths, name_index + 1, width)
    return _Layout(names, widths[name_index], columns[:shown])


def _shown_count(
    widths: Sequence[int],
    fewest: int,
    width: int,
) -> int:
    """How many of the columns, the first ones, have room; so many at least."""
    shown = len(widths)
    while shown > fewest and _table_width(widths[:shown]) > width:
        shown -= 1
    return shown


def _defense_index(columns: Sequence[BoardColumn]) -> int:
    return next(index for index, column in enumerate(columns) if column.key == "defense")


def _column_width(column: BoardColumn, rows: Sequence[RankedRow]) -> int:
    texts = [_heading(column), *(_cell(column, row).plain for row in rows)]
    return max(map(_longest_line, texts))


def _longest_line(text: str) -> int:
    return max(map(len, text.split("\n")))


def _table_width(widths: Sequence[int]) -> int:
    """The columns of a terminal that the table takes, one at either end included."""
    return 2 + sum(widths) + GAP * (len(widths) - 1)


def _heading(column: BoardColumn) -> str:
    return column.heading.replace(" ", "\n")


def _cell(column: BoardColumn, row: RankedRow) -> Text:
    value = column.of(row)
    if isinstance(value, ChainName):
        return Text(value.on_lines())
    if column.kind == "figure":
        return Text(cell_text(column, row, mean_alone))
    return Text(cell_text(column, row, margin))


def _name_lines(name: ChainName, *, narrow: bool = False) -> Text:
    """A single stage's parameters stand below its name, each on a line of its own where it is
    narrow; a chain is broken between its stages where it is long.
    """
    if name.parameters:
        separator = "\n" if narrow else ", "
        below = separator.join(name.parameters)
        name_with_mark = name.family + name.mark
        return Text.assemble(name_with_mark, (f"\n{below}", "not bold dim"))
    if narrow or len(str(name)) - len(name.mark) >= LONG_CHAIN:
        return Text(name.on_lines())
    return Text(str(name))


def _add_column(
    table: Table,
    column: BoardColumn,
    name_width: int,
) -> None:
    if column.key == "defense":
        table.add_column(column.heading, min_width=name_width, overflow="fold")
    elif column.alignment == "left":
        table.add_column(_heading(column), overflow="fold")
    else:
        table.add_column(_heading(column), justify="right", no_wrap=True)


def _title(document: Json) -> Text:
    title = Text(f"{document['experiment']}: {_counts(document)}")
    absent = incomplete(document)
    if absent:
        title.append(f"\n{absent}", style="bold red")
    return title


def _counts(document: Json) -> str:
    """How much was compared."""
    rows = document["rows"]
    seeds = {seed for row in rows for seed in row["seeds"]}
    counts = (
        plural(len(rows), "defense"),
        plural(len(_attacked_scenes(document)), "attacked cell"),
        plural(len(seeds), "seed"),
    )
    return ", ".join(counts)


def _attacked_scenes(document: Json) -> set[tuple[str, str]]:
    """(setting, attack) of the cells in which there is an attack."""
    scenes = set()
    for cell in document["cells"]:
        if cell["attack"] != NOTHING["attack"]:
            scenes.add((cell["setting"], cell["attack"]))
    return scenes


def _caption(document: Json, hidden: Sequence[BoardColumn]) -> str:
    ends = ends_note(document)
    notes = [f"in percent; {ends}" if ends else "in percent", *footnotes(document)]
    if hidden:
        names = ", ".join(column.heading for column in hidden)
        notes.append(f"too narrow for {names}: the files have them")
    return "\n".join(notes)


def _style(row: Json) -> str | None:
    if row["rank"] is None:
        return "dim"
    return "bold green" if row["rank"] == 1 else None
