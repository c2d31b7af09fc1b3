"""What has changed from one leaderboard to another: rows that moved, and cells of other runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from backstop.platform.results.figures.cells import CellKey, cell_key
from backstop.platform.results.figures.comparisons import compare_rows
from backstop.platform.results.figures.names import Json
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.leaderboard.rows import Board
from backstop.platform.results.leaderboard.seedwise import (
    ROW_MEASURES,
    board_of,
    counted_cells,
    pair_values,
    row_values,
)

Runs = Mapping[int, Json]  # seed → run of a cell


def board_changes(first: Json, second: Json) -> Document:
    """From the first leaderboard to the second. A JSON document:

    - ``first``, ``second``: the experiments
    - ``rows``: for each defense that both have its two ``ranks``, the means of each measure as the
      ``first`` and the ``second`` board say them, and its ``changes`` (second less first, with a p
      value) over the cells and seeds that both have; those first that moved most
    - ``only_first``, ``only_second``: the defenses that one of them has
    - ``cells``: those that are not of the same runs, dormant ones aside: the seeds of both, and of
      the seeds that both have those with ``other_ids`` and with ``other_figures`` under one id
    - ``settings``: how many settings there are in the first only, in both and in the second only
    """
    old, new = _rows_by_defense(first), _rows_by_defense(second)
    boards = board_of(first), board_of(second)
    rows = [
        _row(old[defense], new[defense], _changes(*boards, defense))
        for defense in old.keys() & new.keys()
    ]
    return {
        "first": first["experiment"],
        "second": second["experiment"],
        "rows": sorted(rows, key=_movement),
        "only_first": sorted(old.keys() - new.keys()),
        "only_second": sorted(new.keys() - old.keys()),
        "cells": _other_cells(first, second),
        "settings": _overlap(first["settings"], second["settings"]),
    }


def _rows_by_defense(board: Json) -> dict[str, Json]:
    return {row["defense"]: row for row in board["rows"]}


def _row(
    old: Json,
    new: Json,
    changes: Json,
) -> dict[str, Any]:
    return {
        "defense": new["defense"],
        "ranks": [old["rank"], new["rank"]],
        "first": {measure: _mean(old[measure]) for measure in ROW_MEASURES},
        "second": {measure: _mean(new[measure]) for measure in ROW_MEASURES},
        "changes": changes,
    }


def _mean(value: float | Json | None) -> float | None:
    """The mean of a figure, or of a number, which is its own."""
    return value["mean"] if isinstance(value, Mapping) else value


def _changes(
    first: Board,
    second: Board,
    defense: str,
) -> dict[str, Any]:
    """What a defense has in the second board over what it has in the first."""
    scenes = counted_cells(first, defense).keys() & counted_cells(second, defense).keys()
    before, after = (row_values(board, defense, scenes) for board in (first, second))
    changes = {}
    for measure in ROW_MEASURES:
        paired = pair_values(after[measure], before[measure])
        comparison = compare_rows(paired.first, paired.second)
        changes[measure] = comparison and {
            **comparison.difference,
            "p_value": comparison.p_value,
        }
    return changes


def _movement(row: Json) -> tuple[int, float, str]:
    """Ranks moved, then how much the first measure that is known has changed, the most first."""
    old, new = row["ranks"]
    moved = 0 if old is None or new is None else abs(new - old)
    means = [abs(change["mean"]) for change in row["changes"].values() if change]
    return -moved, -means[0] if means else 0.0, row["defense"]


def _other_cells(first: Json, second: Json) -> list[dict[str, Any]]:
    """The cells whose runs are not the same in both boards."""
    old, new = _runs_by_cell(first), _runs_by_cell(second)
    entries = []
    for key in sorted(old.keys() | new.keys()):
        entry = _cell_entry(key, old.get(key, {}), new.get(key, {}))
        if _differs(entry):
            entries.append(entry)
    return entries


def _runs_by_cell(board: Json) -> dict[CellKey, dict[int, Json]]:
    """Cell → seed → its run, without the dormant ones."""
    cells: dict[CellKey, dict[int, Json]] = {}
    for run in board["runs"]:
        if not run["spec"].get("dormant"):
            seeds = cells.setdefault(cell_key(run["spec"]), {})
            seeds[int(run["spec"]["seed"])] = run
    return cells


def _cell_entry(
    key: CellKey,
    old: Runs,
    new: Runs,
) -> dict[str, Any]:
    both = sorted(old.keys() & new.keys())
    other_ids = [seed for seed in both if old[seed]["id"] != new[seed]["id"]]
    return {
        **key._asdict(),
        "seeds": [sorted(old), sorted(new)],
        "other_ids": other_ids,
        "other_figures": [
            seed
            for seed in both
            if seed not in other_ids and old[seed]["metrics"] != new[seed]["metrics"]
        ],
    }


def _differs(entry: Json) -> bool:
    old, new = entry["seeds"]
    return old != new or bool(entry["other_ids"] or entry["other_figures"])


def _overlap(first: Iterable[str], second: Iterable[str]) -> dict[str, int]:
    old, new = set(first), set(second)
    return {
        "only_first": len(old - new),
        "both": len(old & new),
        "only_second": len(new - old),
    }
