"""A leaderboard as Markdown: the ranking, attack success attack by attack, how long backdoors last,
and what the figures mean.
"""

from __future__ import annotations

from collections.abc import Sequence

from backstop.platform.results.figures.names import Json
from backstop.platform.results.figures.wording import percent
from backstop.platform.results.tables.by_attack import BY_ATTACK_NOTE, attack_table
from backstop.platform.results.tables.columns import (
    UNTARGETED_COLUMNS,
    BoardColumn,
    RankedRow,
    cell_text,
    columns_in,
    name_rows,
    ranked_rows,
)
from backstop.platform.results.tables.lifetimes import LIFETIME_HEADS, LIFETIME_NOTE, lifetimes
from backstop.platform.results.tables.notes import ends_note, footnotes, incomplete
from backstop.platform.results.tables.splits import SPLIT_HEADS, SPLIT_NOTE, split_lines


def markdown(document: Json) -> str:
    """The text of leaderboard.md."""
    absent = incomplete(document)
    warning = [f"**{markdown_text(absent)}.**"] if absent else []
    ends = ends_note(document)
    notes = [
        f"In percent; {ends}." if ends else "In percent.",
        document["rule"],
        *(f"{note}." for note in footnotes(document)),
        f"Fingerprint: {document['fingerprint']}.",
    ]
    blocks = [
        f"# Leaderboard: {markdown_text(document['experiment'])}",
        *warning,
        _ranking(ranked_rows(document)),
        *_setting_boards(document),
        *_untargeted(document),
        *_by_attack(document),
        *_lifetimes(document),
        *_splits(document),
        *map(markdown_text, notes),
    ]
    return "\n\n".join(blocks) + "\n"


def markdown_text(text: object) -> str:
    r"""A text that Markdown shows as it stands, on one line of a table.

    >>> markdown_text("a | b <i>")
    'a \\| b &lt;i>'
    """
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return escaped.replace("\n", " ")


def markdown_table(
    heads: Sequence[str],
    alignments: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> str:
    """A table; each column is aligned to the ``left`` or to the ``right``."""
    rule = [":---" if alignment == "left" else "---:" for alignment in alignments]
    escaped = [list(map(markdown_text, row)) for row in rows]
    lines = [heads, rule, *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ranking(rows: Sequence[RankedRow]) -> str:
    return _table(columns_in("markdown", rows), rows)


def _table(columns: Sequence[BoardColumn], rows: Sequence[RankedRow]) -> str:
    texts = [[cell_text(column, row) for column in columns] for row in rows]
    return markdown_table(
        [column.heading for column in columns],
        [column.alignment for column in columns],
        texts,
    )


def _setting_boards(document: Json) -> list[str]:
    """The ranking of each setting, where there are several."""
    blocks = []
    for board in document["boards"]:
        title = f"## {markdown_text(board['title'])}"
        blocks += [title, _ranking(name_rows(document, board["rows"]))]
    return blocks


def _untargeted(document: Json) -> list[str]:
    """The board of the attacks that only do damage."""
    rows = name_rows(document, document["untargeted"])
    return ["## Untargeted attacks", _table(UNTARGETED_COLUMNS, rows)] if rows else []


def _by_attack(document: Json) -> list[str]:
    """Attack success of every attack against every defense; nothing for fewer than two attacks."""
    table = attack_table(document)
    if table is None:
        return []
    defenses = map(markdown_text, table.defenses)
    heads = ["attack", "knows", "clean twin", "untriggered", *defenses]
    alignments = ["left", "left", *["right"] * (len(heads) - 2)]
    rows = []
    for line in table.lines:
        rates = (line.clean_twin, line.untriggered, *line.successes)
        rows.append([str(line.attack), line.knows, *map(percent, rates)])
    title = "## Attack success, attack by attack"
    return [title, markdown_table(heads, alignments, rows), BY_ATTACK_NOTE]


def _splits(document: Json) -> list[str]:
    """How unequal the clients are, where the runs tell it."""
    rows = split_lines(document)
    if not rows:
        return []
    table = markdown_table(SPLIT_HEADS, ["left"] * len(SPLIT_HEADS), rows)
    return ["## How unequal the clients are", SPLIT_NOTE, table]


def _lifetimes(document: Json) -> list[str]:
    """How long backdoors take and last; nothing where no attack stops."""
    rows = lifetimes(document)
    if not rows:
        return []
    alignments = ("left", "left", *["right"] * (len(LIFETIME_HEADS) - 2))
    title = "## How long backdoors last"
    return [title, markdown_table(LIFETIME_HEADS, alignments, rows), LIFETIME_NOTE]
