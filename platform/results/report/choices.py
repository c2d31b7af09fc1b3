"""What a reader of the page can filter by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from backstop.platform.results.figures.names import attack_names, task_names
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.report.details import Detail
from backstop.platform.results.report.marks import UNATTACKED


class Choice(NamedTuple):
    """One option of a filter."""

    value: str  # as rows and cells carry it
    label: str


class Choices(NamedTuple):
    """The filters; one with fewer than two options is no choice, and the page leaves it out."""

    settings: Sequence[Choice]
    attacks: Sequence[Choice]
    knows: Sequence[Choice]
    needs: Sequence[Choice]
    years: Sequence[Choice]


def choices(document: Document, details: Sequence[Detail]) -> Choices:
    """The filters of a leaderboard."""
    attacked = [cell for cell in document["cells"] if cell["attack"] != UNATTACKED]
    names = attack_names(document)
    attacks = sorted((str(name), text) for text, name in names.items())
    needs = {need for detail in details for need in detail.row.fields["needs"]}
    years = {detail.year for detail in details if detail.year is not None}
    return Choices(
        settings=[Choice(board["setting"], board["title"]) for board in document["boards"]],
        attacks=[Choice(text, name) for name, text in attacks],
        knows=_same(cell["knows"] for cell in attacked),
        needs=_same(needs),
        years=_same(map(str, years)),
    )


def _same(texts: Iterable[str]) -> list[Choice]:
    """Options whose values are what people read."""
    return [Choice(text, text) for text in sorted(set(texts) - {""})]


def setting_titles(document: Document) -> dict[str, str]:
    """Setting → what people call it: its board's title, or its data and model where there is no
    choice.
    """
    return task_names(document) | {board["setting"]: board["title"] for board in document["boards"]}
