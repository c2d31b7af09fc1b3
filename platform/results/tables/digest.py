"""A leaderboard in the few lines that a note beside its runs has room for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from backstop.platform.results.figures.names import Json
from backstop.platform.results.figures.wording import plural
from backstop.platform.results.tables.columns import RankedRow, cell_text, columns_in, ranked_rows
from backstop.platform.results.tables.markdown import markdown_table, markdown_text
from backstop.platform.results.tables.notes import footnotes, incomplete

ROWS = 10
BEST_FIGURES = ("score", "worst_excess", "attack_success_rate", "clean_accuracy", "der")


def board_note(document: Json, space: str) -> str:
    """The ranking's first rows in Markdown, and the commands that run it again and verify it."""
    rows = ranked_rows(document)
    blocks = [f"**{_extent(document)}**"]
    if absent := incomplete(document):
        blocks.append(f"**{markdown_text(absent)}.**")
    if rows:
        blocks += [_table(rows[:ROWS]), _below(rows)]
        blocks += [markdown_text(f"{note}.") for note in footnotes(document)]
    blocks.append(f"```\n{_commands(str(document['experiment']), space)}\n```")
    return "\n\n".join(blocks) + "\n"


def _extent(document: Json) -> str:
    """How much was run, in words."""
    counted = counts(document)
    parts = ", ".join(plural(counted[name], name[:-1]) for name in ("defenses", "attacks", "seeds"))
    return f"{plural(counted['runs'], 'run')}: {parts}"


def counts(document: Json) -> dict[str, int]:
    """How many runs a leaderboard has, and of how many defenses, attacks and seeds."""
    attacks = {cell["attack"] for cell in document["cells"]} - {"none"}
    return {
        "runs": len(document["runs"]),
        "defenses": len({cell["defense"] for cell in document["cells"]}),
        "attacks": len(attacks),
        "seeds": len({seed for row in document["rows"] for seed in row["seeds"]}),
    }


def best_row(document: Json) -> Mapping[str, Any]:
    """The first ranked row's name and figures, as far as it has them; empty where none is."""
    ranked = [row for row in ranked_rows(document) if row.fields["rank"] is not None]
    if not ranked:
        return {}
    fields = ranked[0].fields
    figures = {name: fields[name]["mean"] for name in BEST_FIGURES if fields.get(name) is not None}
    return {"defense": str(ranked[0].defense._replace(mark="")), **figures}


def _table(rows: list[RankedRow]) -> str:
    columns = columns_in("terminal", rows)
    return markdown_table(
        [column.heading for column in columns],
        [column.alignment for column in columns],
        [[cell_text(column, row) for column in columns] for row in rows],
    )


def _below(rows: list[RankedRow]) -> str:
    more = len(rows) - ROWS
    others = f"{plural(more, 'row')} more, the" if more > 0 else "The"
    return f"In percent. {others} rule and all figures are in Artifacts, under `leaderboard`."


def _commands(experiment: str, space: str) -> str:
    name = shlex.quote(experiment)
    return "\n".join(
        [
            f"backstop sweep {shlex.quote(space)} --experiment {name}",
            f"backstop leaderboard --experiment {name} --out board",
            "backstop verify board/leaderboard.json --sample 3",
        ]
    )
