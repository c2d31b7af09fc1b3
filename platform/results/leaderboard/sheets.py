"""What the plug-ins of a leaderboard say of themselves, where they are installed here."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from backstop.platform import loose, plugins
from backstop.platform.declarations.venues import OWN, YEAR
from backstop.platform.params import BadInput
from backstop.platform.results.figures.names import Json


class DataSheet(NamedTuple):
    """The data sheet of a plug-in."""

    name: str
    summary: str
    text: str
    year: int | None  # of its paper


@lru_cache
def data_sheet(group: str, name: str) -> DataSheet | None:
    """The data sheet of a plug-in; None of one that is not installed here or cannot be read."""
    if not plugins.is_there(group, name):
        return None
    try:
        described = plugins.describe(group, name)
    except BadInput:
        return None
    return DataSheet(name, described.summary, described.sheet, paper_year(described.source))


def absent_files(specs: Iterable[Json]) -> list[str]:
    """The loose files of stored specs that are not here, as the specs name them."""
    names: dict[str, None] = {}
    for spec in specs:
        parts = [spec["dataset"], spec["model"], *spec["attack"], *spec["defense"]]
        names |= dict.fromkeys(part["name"] for part in parts)
    return [name for name in names if loose.is_full_name(name) and not loose.is_here(name)]


def absence_line(specs: Iterable[Json]) -> str:
    """What is lost where loose files of stored specs are not here; empty where all are."""
    absent = absent_files(specs)
    if not absent:
        return ""
    return (
        f"{', '.join(absent)}: not here, so what it says of itself (data sheet, needs, knowledge)"
        " is not shown; --plugin FILE names it"
    )


def data_sheets(group: str, names: Iterable[str]) -> list[DataSheet]:
    """The data sheets of a chain's plug-ins, each once; those that are not there are left out."""
    found = (data_sheet(group, name) for name in dict.fromkeys(names))
    return [item for item in found if item is not None]


def paper_year(source: str) -> int | None:
    """The year of the first paper that a source names; None for a method of this project.

    >>> paper_year('Z. Sun, "Can You?", 2019 (arXiv 1911.07963).')
    2019
    >>> paper_year("of this project, after an idea of NDSS 2021.")
    """
    years = YEAR.findall(source)
    if not years or source.startswith(OWN):
        return None
    return int(years[0])


def newest_year(listed: Iterable[DataSheet]) -> int | None:
    """The year of the youngest method of a chain; None where no year is known."""
    return max((item.year for item in listed if item.year is not None), default=None)
