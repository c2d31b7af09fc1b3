"""Rows as pictures show them: the variants of a defense share a color, the best one is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backstop.platform.results.figures.names import Json
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.report.canvas import INK
from backstop.platform.results.tables.columns import ranked_rows
from backstop.platform.specs.part import NOTHING

UNATTACKED, UNDEFENDED = NOTHING["attack"], NOTHING["defense"]
# Okabe and Ito, "Color Universal Design", 2008: eight colors that stay apart under color
# blindness; the lightest left out.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
OTHERS = "#8a9099"
LONGEST_NAME = 48  # letters; a longer one would leave a picture no room


class Mark(NamedTuple):
    """A row with the name and the color of its family."""

    row: Json
    family: str
    color: str
    best: bool  # the best of its family

    @property
    def name(self) -> str:
        """The family's name, cut where it is too long to be drawn."""
        if len(self.family) <= LONGEST_NAME:
            return self.family
        return f"{self.family[: LONGEST_NAME - 1]}…"


class Line(NamedTuple):
    """A row's line in a picture."""

    mark: Mark
    points: Sequence[tuple[float, float]]


def marks(document: Document) -> list[Mark]:
    """The rows by rank; the best six families and FedAvg have colors, all others are gray."""
    rows = ranked_rows(document)
    colors = _family_colors([row.defense.family for row in rows])
    seen: set[str] = set()
    listed = []
    for row in rows:
        family = row.defense.family
        color = colors.get(family, OTHERS)
        listed.append(Mark(row.fields, family, color, best=family not in seen))
        seen.add(family)
    return listed


def _family_colors(families: Sequence[str]) -> dict[str, str]:
    defended = dict.fromkeys(family for family in families if family != UNDEFENDED)
    colors = dict(zip(defended, PALETTE, strict=False))
    return {**colors, UNDEFENDED: INK}


def best_per_family(document: Document) -> list[Mark]:
    """The best row of each family that has a color of its own, by rank."""
    return [mark for mark in marks(document) if mark.best and mark.color != OTHERS]
