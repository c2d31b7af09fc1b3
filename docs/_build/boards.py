"""The published leaderboards of docs/results, and what they say of one plug-in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from backstop.platform.results.figures.names import (
    ChainName,
    attack_names,
    task_names,
)
from backstop.platform.results.figures.wording import spread
from backstop.platform.results.leaderboard.reading import load_document
from backstop.platform.results.tables.columns import cell_text, columns_in, name_rows
from backstop.platform.results.tables.markdown import markdown_table

RESULTS = Path(__file__).resolve().parents[1] / "results"
LONG = re.compile(r"\d+\.\d{5,}(?:e-?\d+)?")
SHOWN = (
    "rank",
    "defense",
    "score",
    "worst_attack",
    "excess_success",
    "cost_under_attack",
    "attack_success_rate",
    "clean_accuracy",
)
CELL_HEADS = ("attack", "data (model)", "attack success", "clean twin", "excess", "accuracy cost")
CELL_FIGURES = (
    "attack_success_rate",
    "natural_success",
    "excess_success",
    "cost_under_attack",
)


class Board(NamedTuple):
    """A published leaderboard."""

    folder: str  # of docs/results
    document: Mapping[str, Any]

    @property
    def link(self) -> str:
        """Its page, from the page of a plug-in."""
        return f"../../results/{self.folder}/leaderboard.md"


def board_titles() -> dict[str, str]:
    """Folder → what the navigation calls it."""
    return {
        file.parent.name: file.parent.name.replace("_", " ").replace("-", " ")
        for file in sorted(RESULTS.glob("*/leaderboard.md"))
    }


@lru_cache
def boards() -> tuple[Board, ...]:
    """All of them."""
    return tuple(Board(name, load_document(RESULTS / name)) for name in board_titles())


def _uses(stages: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(stage["name"] == name for stage in stages)


def defense_rows(name: str) -> Iterator[str]:
    """For each board that has a defense with this stage, a table of its rows."""
    for board in boards():
        all_rows = name_rows(board.document, board.document["rows"])
        stages = {row["defense"]: row["defense_stages"] for row in board.document["rows"]}
        rows = [
            row
            for row in all_rows
            if _uses(stages[row.fields["defense"]], name)
            or (name == "fedavg" and not stages[row.fields["defense"]])
        ]
        if not rows:
            continue
        columns = [column for column in columns_in("markdown", rows) if column.key in SHOWN]
        table = markdown_table(
            [column.heading for column in columns],
            [column.alignment for column in columns],
            [[_rounded(cell_text(column, row)) for column in columns] for row in rows],
        )
        yield f"{_heading(board, len(rows[0].fields['seeds']))}\n\n{table}"


def attack_rows(name: str) -> Iterator[str]:
    """For each board that has an attack with this stage, what it does to undefended FedAvg."""
    for board in boards():
        cells = [
            cell
            for cell in board.document["cells"]
            if _uses(cell["attack_stages"], name) and not cell["defense_stages"]
        ]
        if not cells:
            continue
        names = attack_names(board.document)
        tasks = task_names(board.document)
        alignments = ["left", "left", *["right"] * len(CELL_FIGURES)]
        rows = [[*_labels(cell, names, tasks), *_figures(cell)] for cell in cells]
        table = markdown_table(CELL_HEADS, alignments, rows)
        yield f"{_heading(board, len(cells[0]['seeds']))}\n\n{table}"


def _labels(
    cell: Mapping[str, Any],
    names: Mapping[str, ChainName],
    tasks: Mapping[str, str],
) -> tuple[str, str]:
    return _rounded(str(names[cell["attack"]])), tasks[cell["setting"]]


def _rounded(text: str) -> str:
    """A chain whose parameters a search has drawn, with three digits; the board's page has them
    all.
    """
    return LONG.sub(lambda number: f"{float(number[0]):.3g}", text)


def _figures(cell: Mapping[str, Any]) -> list[str]:
    return [spread(cell.get(figure)) for figure in CELL_FIGURES]


def _heading(board: Board, seeds: int) -> str:
    return f"[`{board.document['experiment']}`]({board.link}), {seeds} seeds:"


def task_boards(group: str, name: str) -> list[Board]:
    """The boards with a setting of this dataset or model."""
    role = group.removesuffix("s")
    return [
        board
        for board in boards()
        if any(fields[role]["name"] == name for fields in board.document["settings"].values())
    ]


def space_boards(name: str) -> list[Board]:
    """The boards that a sweep of this search space has made."""
    return [board for board in boards() if board.document["experiment"] == name]
