"""The runs of the defense that a leaderboard ranks first."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import NamedTuple

from backstop.platform.results.figures.names import Json, chain_label, row_of


class Best(NamedTuple):
    """A defense, and the ids of all its runs: every attack, every seed."""

    defense: str
    ids: AbstractSet[str]


def best_runs(board: Json) -> Best:
    """The ranked defense that stands first, with its runs; no name and no runs where nothing is
    ranked. Before it may stand references and variants, which have no rank.
    """
    ranked = (row for row in board["rows"] if row["rank"] is not None)
    first = next(ranked, None)
    if first is None:
        return Best("", frozenset())
    defense = str(first["defense"])
    ids = {
        run["id"]
        for run in board["runs"]
        if row_of(board, chain_label(run["spec"]["defense"], "defense")) == defense
    }
    return Best(defense, ids)
