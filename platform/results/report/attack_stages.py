"""The attacks of a leaderboard: what each stage is, and what a trigger looks like."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.leaderboard.sheets import DataSheet, data_sheet
from backstop.platform.results.report.marks import UNATTACKED
from backstop.platform.specs.notation import NEXT_ADVERSARY

PICTURES = Path(__file__).parent / "triggers"  # drawn by benchmarks/triggers.py
PICTURES_NOTE = (
    "A piece of a photograph, the same under the trigger at its default parameters, and four times"
    " the difference around gray; of an attack that has inputs of its own, one of these. The inputs"
    " of this leaderboard may be others."
)


class AttackStage(NamedTuple):
    """A stage of some of the attacks."""

    name: str
    sheet: DataSheet | None  # None where it is not installed here
    picture: str  # a data: address; empty where there is none
    chains: Sequence[str]  # the attacks that it is a stage of


def attack_stages(document: Document) -> list[AttackStage]:
    """The stages of all attacks, by name."""
    chains: dict[str, set[str]] = {}
    for cell in document["cells"]:
        if cell["attack"] != UNATTACKED:
            for stage in cell["attack_stages"]:
                if stage["name"] == NEXT_ADVERSARY:
                    continue
                chains.setdefault(stage["name"], set()).add(cell["attack"])
    return [
        AttackStage(name, data_sheet("attacks", name), trigger_picture(name), sorted(attacks))
        for name, attacks in sorted(chains.items())
    ]


def trigger_picture(attack: str) -> str:
    """A photograph clean, triggered, and the difference, as a data: address; empty of an attack
    that has none here.
    """
    pictures = {file.stem: file for file in PICTURES.glob("*.png")}
    if attack not in pictures:
        return ""
    content = base64.b64encode(pictures[attack].read_bytes()).decode()
    return f"data:image/png;base64,{content}"
