"""What the page takes of the other forms of a leaderboard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from backstop.platform.results.by_attack import BY_ATTACK_NOTE
from backstop.platform.results.columns import footnote_marks
from backstop.platform.results.document import Document
from backstop.platform.results.lifetimes import LIFETIME_HEADS, LIFETIME_NOTE, lifetimes
from backstop.platform.results.names import attack_names
from backstop.platform.results.notes import footnotes, incomplete
from backstop.platform.specs.part import NOTHING

__all__ = ["LIFETIME_HEADS", "LIFETIME_NOTE", "footnotes", "incomplete", "lifetimes"]
TWINS = BY_ATTACK_NOTE
remarks = footnote_marks


def means(
    cells: Sequence[Mapping[str, Any]], keys: Sequence[str], figure: str
) -> dict[tuple[str, ...], float]:
    """The mean of a figure over the cells that have it, by the values of some of their fields."""
    listed: dict[tuple[str, ...], list[float]] = {}
    for cell in cells:
        if cell[figure] is not None:
            listed.setdefault(tuple(cell[key] for key in keys), []).append(cell[figure]["mean"])
    return {place: math.fsum(values) / len(values) for place, values in listed.items()}


def undefended(cells: Sequence[Document]) -> list[Document]:
    """The cells of plain FedAvg."""
    return [cell for cell in cells if cell["defense"] == NOTHING["defense"]]


def marked_attacks(document: Mapping[str, Any]) -> dict[str, str]:
    """Attack → its name for people, with ° where it counts in no rank in any setting."""
    attacked = [cell for cell in document["cells"] if cell["attack"] != NOTHING["attack"]]
    counted = {cell["attack"] for cell in attacked if not cell["left_out"]}
    names = attack_names(document)
    return {
        attack: str(name) if attack in counted else f"{name}°" for attack, name in names.items()
    }
