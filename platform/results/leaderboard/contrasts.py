"""Two defenses of a leaderboard beside each other, seed by seed: what the one has over the other,
how sure that is, which cells decide it, and how many seeds are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from backstop.platform.params import BadInput, nearest
from backstop.platform.results.figures.comparisons import (
    LEVEL,
    compare_rows,
    paired_differences,
    seeds_needed,
)
from backstop.platform.results.figures.intervals import figure
from backstop.platform.results.figures.means import SeedValues
from backstop.platform.results.figures.names import Json, chain_names, document_chains
from backstop.platform.results.figures.scored import ScoredCell
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.leaderboard.rows import SceneKey
from backstop.platform.results.leaderboard.seedwise import (
    BALANCE,
    CELL_MEASURES,
    ROW_MEASURES,
    board_of,
    cell_values,
    counted_cells,
    pair_values,
    row_values,
    scene_weights,
)

Values = Mapping[str, SeedValues]
Pair = tuple[ScoredCell, ScoredCell]


def contrast_defenses(
    document: Json,
    first: str,
    second: str,
) -> Document:
    """Two rows of a leaderboard, named in full, by the names that its table shows, or by their
    stages' names where one row has these. A JSON document:

    - ``first``, ``second``: the defenses; ``experiment``: the leaderboard's
    - ``figures``: for each measure the ``seeds`` that count, the figures of both, their
      ``difference`` (first less second), its ``p_value`` (None under six seeds) and ``more_seeds``:
      how many seeds more tell them apart, None where that cannot be known
    - ``leading``: the first measure that both have, by which they are told ``apart``, None under
      six seeds
    - ``worst``: the worst attack of each
    - ``cells``: the differences in each attacked cell that both have. A cell's balance is
      1 - excess - cost; its ``contribution`` is its share of the difference of the mean balance,
      and those that contribute most come first
    - ``only_first``, ``only_second``: cells that one of them lacks, which count nowhere here

    Shares are from 0 to 1. Raises BadInput for names that no row has, or rows that share no cell.
    """
    one, other = defense_named(document, first), defense_named(document, second)
    if one == other:
        raise BadInput(f"compare: {first!r} and {second!r} are one defense, {one}; name two")
    board = board_of(document)
    cells = counted_cells(board, one), counted_cells(board, other)
    scenes = cells[0].keys() & cells[1].keys()
    if not scenes:
        raise BadInput(f"compare: {one} and {other} met no attack in common that does something")
    values = row_values(board, one, scenes), row_values(board, other, scenes)
    figures = [_measured(measure, *values) for measure in ROW_MEASURES]
    leading = next((item for item in figures if item["seeds"]), figures[0])
    return {
        "experiment": document["experiment"],
        "first": one,
        "second": other,
        "leading": leading["measure"],
        "apart": _apart(leading),
        "figures": figures,
        "worst": [_worst_attack(document, defense) for defense in (one, other)],
        "cells": _cells({scene: (cells[0][scene], cells[1][scene]) for scene in scenes}),
        "only_first": _scenes(cells[0].keys() - scenes),
        "only_second": _scenes(cells[1].keys() - scenes),
    }


def leading_of(contrast: Json) -> Json:
    """The figures of the measure by which two defenses are told apart."""
    (leading,) = [item for item in contrast["figures"] if item["measure"] == contrast["leading"]]
    measured: Json = leading
    return measured


def _worst_attack(document: Json, defense: str) -> str | None:
    (row,) = [row for row in document["rows"] if row["defense"] == defense]
    attack: str | None = row["worst_attack"]
    return attack


def defense_named(document: Json, text: str) -> str:
    """The row's defense that is meant. Raises BadInput with the nearest name."""
    chains = document_chains(document)
    names = chain_names({row["defense"]: chains[row["defense"]] for row in document["rows"]})
    if text in names:
        return text
    for meant in (
        [full for full, name in names.items() if str(name) == text],
        [full for full, name in names.items() if name.family == text],
    ):
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise BadInput(
                f"compare: {text!r} is the name of {len(meant)} rows; known: {', '.join(meant)}"
            )
    known = {str(name) for name in names.values()}
    raise BadInput(
        f"compare: leaderboard {document['experiment']!r} has no row {text!r};"
        f" {nearest(text, known)}"
    )


def _measured(
    measure: str,
    first: Values,
    second: Values,
) -> dict[str, Any]:
    """A measure of both over the seeds that both have, and its difference."""
    paired = pair_values(first[measure], second[measure])
    comparison = compare_rows(paired.first, paired.second)
    return {
        "measure": measure,
        "seeds": paired.seeds,
        "first": figure(paired.first),
        "second": figure(paired.second),
        "difference": comparison and comparison.difference,
        "p_value": comparison and comparison.p_value,
        "more_seeds": seeds_needed(paired_differences(paired.first, paired.second)),
    }


def _apart(measured: Json) -> bool | None:
    """Whether the difference is told from nothing."""
    chance = measured["p_value"]
    return None if chance is None else bool(chance <= LEVEL)


def _cells(pairs: Mapping[SceneKey, Pair]) -> list[dict[str, Any]]:
    """The differences in each scene, by what they contribute."""
    weights = scene_weights({scene: first for scene, (first, _) in pairs.items()})
    entries = [_cell(scene, pair, weights[scene]) for scene, pair in pairs.items()]
    return sorted(entries, key=_weight)


def _weight(entry: Json) -> tuple[float, str, str]:
    return -abs(entry["contribution"] or 0.0), entry["setting"], entry["attack"]


def _cell(
    scene: SceneKey,
    pair: Pair,
    weight: float,
) -> dict[str, Any]:
    """What the first has over the second in a scene that has this share of their means."""
    first, second = map(cell_values, pair)
    differences = {}
    for measure in CELL_MEASURES:
        paired = pair_values(first[measure], second[measure])
        comparison = compare_rows(paired.first, paired.second)
        differences[measure] = comparison and comparison.difference
    balance = differences[BALANCE]
    return {
        **_scene(scene),
        "contribution": balance and weight * balance["mean"],
        "differences": differences,
    }


def _scenes(scenes: Iterable[SceneKey]) -> list[dict[str, str]]:
    return [_scene(scene) for scene in sorted(scenes)]


def _scene(scene: SceneKey) -> dict[str, str]:
    return dict(zip(("setting", "attack"), scene, strict=True))
