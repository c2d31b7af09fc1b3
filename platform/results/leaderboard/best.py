"""The runs of the defense that a leaderboard ranks first."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import NamedTuple

from backstop.platform.results.figures.names import Json, chain_label


class Best(NamedTuple):
    """A defense, and the ids of all its runs: every attack, every seed."""

    defense: str
    ids: AbstractSet[str]


def best_runs(board: Json) -> Best:
    """The defense on the first row, with its runs; no name and no runs where nothing is ranked."""
    if not board["rows"]:
        return Best("", frozenset())
    defense = str(board["rows"][0]["defense"])
    ids = {
        run["id"]
        for run in board["runs"]
        if chain_label(run["spec"]["defense"], "defense") == defense
    }
    return Best(defense, ids)
