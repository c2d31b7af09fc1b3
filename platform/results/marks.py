"""Rows as pictures show them: the variants of a defense share a color, the best one is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backstop.platform.results.canvas import INK
from backstop.platform.results.names import chain_label
from backstop.platform.specs.part import NOTHING

Stages = Sequence[Mapping[str, Any]]

UNATTACKED, UNDEFENDED = NOTHING["attack"], NOTHING["defense"]
# Okabe and Ito, "Color Universal Design", 2008: eight colors that stay apart under color
# blindness; the lightest left out.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
OTHERS = "#8a9099"
LONGEST_NAME = 48  # letters; a longer one would leave a picture no room


class Mark(NamedTuple):
    """A row with the name and the color of its family."""

    row: Mapping[str, Any]
    family: str
    color: str
    best: bool  # the best of its family

    @property
    def name(self) -> str:
        """The family's name, cut where it is too long to be drawn."""
        if len(self.family) <= LONGEST_NAME:
            return self.family
        return f"{self.family[: LONGEST_NAME - 1]}…"


def chains_of_runs(document: Mapping[str, Any], role: str) -> dict[str, Stages]:
    """The attacks or defenses of the runs: text form → stages."""
    chains = [run["spec"][role] for run in document["runs"]]
    return {chain_label(stages, role): stages for stages in chains}


def family_name(stages: Stages) -> str:
    """A defense's stages without parameters: what its variants have in common.

    >>> family_name([{"name": "clip", "params": {"norm": 1}}, {"name": "median", "params": {}}])
    'clip+median'
    """
    return "+".join(stage["name"] for stage in stages) or UNDEFENDED


def marks(document: Mapping[str, Any]) -> list[Mark]:
    """The rows by rank; the best six families and FedAvg have colors, all others are gray."""
    chains = chains_of_runs(document, "defense")
    families = [family_name(chains[row["defense"]]) for row in document["rows"]]
    colors = _family_colors(families)
    seen: set[str] = set()
    listed = []
    for row, family in zip(document["rows"], families, strict=True):
        listed.append(Mark(row, family, colors.get(family, OTHERS), family not in seen))
        seen.add(family)
    return listed


def _family_colors(families: Sequence[str]) -> dict[str, str]:
    defended = dict.fromkeys(family for family in families if family != UNDEFENDED)
    return dict(zip(defended, PALETTE, strict=False)) | {UNDEFENDED: INK}


def best_per_family(document: Mapping[str, Any]) -> list[Mark]:
    """The best row of each family that has a color of its own, by rank."""
    return [mark for mark in marks(document) if mark.best and mark.color != OTHERS]
