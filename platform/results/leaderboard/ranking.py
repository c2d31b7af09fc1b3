"""The leaderboard: a pure function of the logged runs. Select, score, rank.

A *cell* is one setting (everything but attack, defense and seed) under one attack and one defense,
over its seeds. A *row* is one defense over all its attacked cells. A *board* is the rows over all
settings, and over each.

Sums are exact or of a fixed order and no generator is used: the same runs give the same bytes
anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from backstop.platform import collector
from backstop.platform.params import BadInput
from backstop.platform.results.figures.break_even import break_even_shares
from backstop.platform.results.figures.cells import (
    Logged,
    cell_key,
    gather_cells,
    run_order,
    setting_fields,
)
from backstop.platform.results.figures.joined import join_cell, joined_key, joined_variants
from backstop.platform.results.figures.names import (
    ChainName,
    Json,
    chain_label,
    part_label,
    part_names,
)
from backstop.platform.results.figures.scored import score_cells
from backstop.platform.results.figures.twins import twins_by_cell
from backstop.platform.results.leaderboard.document import SCHEMA, Document
from backstop.platform.results.leaderboard.entries import cell_entry, run_entry
from backstop.platform.results.leaderboard.partitions import splits_of
from backstop.platform.results.leaderboard.rows import Board, board_rows
from backstop.platform.results.leaderboard.rule import RULE
from backstop.platform.results.leaderboard.selection import (
    check_comparable,
    code_digests,
    fingerprints,
    latest_version,
    missing_runs,
    on_test_data,
)
from backstop.platform.results.leaderboard.unattacked import without_dormant
from backstop.platform.results.leaderboard.untargeted import untargeted_rows
from backstop.platform.specs.part import Scalar
from backstop.platform.specs.spec import YOUNGER_FIELDS, scalar_fields


@collector.resting()  # what is made here stays: looking for garbage takes half of the time
def build_document(
    runs: Iterable[Logged],
    experiment: str,
    *,
    mix: bool = False,
    planned: Mapping[str, str] | None = None,
    searched: Sequence[Json] = (),
) -> Document:
    """The leaderboard of the runs, in whatever order they come.

    ``planned``, spec id → the run in words, are the runs that were meant to be: those without a
    finished run stand in ``missing_runs``, so that what is not complete does not look so.
    ``searched`` are the winners of searches as the document holds them: ``side``, ``ids`` of the
    confirming runs, ``trials``, ``seeds``, ``objective``. Raises BadInput when the runs hold
    several fingerprints, or read several versions of one dataset, unless told to mix.
    """
    ordered = sorted(runs, key=run_order)
    ranked = on_test_data(latest_version(ordered))
    if not ranked:
        raise BadInput(f"experiment {experiment!r} holds no finished run; nothing to rank")
    if not mix:
        check_comparable(ranked, experiment)
    return ranking_document(
        ranked,
        experiment,
        fingerprint=" | ".join(fingerprints(ranked)),
        code=code_digests(ranked),
        missing=missing_runs(ordered, planned or {}),
        searched=searched,
    )


def ranking_document(
    runs: Sequence[Logged],
    experiment: str,
    *,
    fingerprint: str,
    code: Mapping[str, str],
    missing: Sequence[Mapping[str, str]],
    searched: Sequence[Json],
) -> Document:
    """The leaderboard's document of ordered runs of one fingerprint."""
    board = scored_board(runs, searched)
    everything = (*board.cells, *board.searched)
    settings = {item.cell.key.setting: setting_fields(item.cell.spec) for item in everything}
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "fingerprint": fingerprint,
        "code": dict(code),
        "rule": RULE,
        "missing_runs": [dict(item) for item in missing],
        "settings": settings,
        "splits": splits_of(runs),
        "joined": dict(sorted(board.joined.items())),
        "rows": _rows(board),
        "boards": _setting_boards(board, settings),
        "untargeted": untargeted_rows(board.cells),
        "searched": [dict(item) for item in searched],
        "cells": _cells(board),
        "runs": [run_entry(run) for run in runs],
    }


def scored_board(runs: Sequence[Logged], searched: Sequence[Json]) -> Board:
    """The scored cells, those of joined variants under one name: those under the attacks that a
    search has chosen stand by themselves.
    """
    chosen = _trials_by_run(searched, "attack")
    tuned = _trials_by_run(searched, "defense")
    active = without_dormant(runs)
    confirming = [run for run in active if run.id in chosen]
    ordinary = gather_cells(run for run in active if run.id not in chosen)
    worst_cases = gather_cells(confirming)
    by_key = {cell.key: cell for cell in (*worst_cases, *ordinary)}
    twins_of = twins_by_cell(runs)
    best = {chain_label(run.spec["defense"], "defense") for run in active if run.id in tuned}
    joined = joined_variants((*ordinary, *worst_cases), apart=best)
    cells = score_cells(ordinary, by_key, twins_of)
    searched_cells = score_cells(worst_cases, by_key, twins_of)
    return Board(
        cells=[join_cell(item, joined) for item in cells],
        searched=[join_cell(item, joined) for item in searched_cells],
        trials={joined_key(cell_key(run.spec), joined): chosen[run.id] for run in confirming},
        tuned=frozenset(best),
        joined={variant: chain_label(stages, "defense") for variant, stages in joined.items()},
    )


def _trials_by_run(searched: Sequence[Json], side: str) -> dict[str, int]:
    """Spec id of a confirming run → the proposals of its search."""
    trials: dict[str, int] = {}
    for item in searched:
        if item["side"] == side:
            trials |= dict.fromkeys(item["ids"], int(item["trials"]))
    return trials


def _cells(board: Board) -> list[Document]:
    """The cells, marked where only a search has chosen their attack."""
    scenes = board.scenes()
    entries = []
    for item in board.cells:
        alone = item.cell.targeted and item.cell.key.scene not in scenes
        entries.append(cell_entry(item, searched=alone))
    return entries + [cell_entry(item, searched=True) for item in board.searched]


def _rows(board: Board) -> list[Document]:
    """The rows over all settings, with the share of attackers at which each defense breaks."""
    shares = break_even_shares(board.cells)
    return [{**row, "break_even_share": shares.get(row["defense"])} for row in board_rows(board)]


def _setting_boards(board: Board, settings: Mapping[str, Json]) -> list[Document]:
    """The rows of each setting, where there are several; a setting is told by what it has of its
    own.
    """
    names = board.settings()
    if len(names) < 2:
        return []
    parts = board.by_setting()
    varied = _varied_fields([settings[name] for name in names])
    called = part_names(settings[name] for name in names)
    return [
        {
            "setting": name,
            "title": _title(settings[name], varied, called),
            "share": settings[name]["malicious"],
            "rows": _without_shares(board_rows(parts[name])),
        }
        for name in names
    ]


def _without_shares(rows: Sequence[Json]) -> list[Document]:
    """One setting has one share of attackers."""
    return [{**row, "break_even_share": None} for row in rows]


def _varied_fields(settings: Sequence[Json]) -> list[str]:
    """The fields of which the settings have several values."""
    fields = sorted({field for setting in settings for field in setting})
    varied = []
    for field in fields:
        values = [setting.get(field) for setting in settings]
        if any(value != values[0] for value in values):
            varied.append(field)
    return varied


def _usual(field: str) -> Scalar:
    """What a field has that is not written down."""
    return scalar_fields()[field].default if field in YOUNGER_FIELDS else None


def _title(
    setting: Json,
    varied: Sequence[str],
    called: Mapping[str, ChainName],
) -> str:
    """A setting in words: its dataset and what else it has of its own."""
    words = [str(called[part_label(setting["dataset"])])]
    for field in varied:
        if field != "dataset":
            value = setting.get(field, _usual(field))
            text = called[part_label(value)] if isinstance(value, Mapping) else value
            words.append(f"{field}={text}")
    return ", ".join(words)
