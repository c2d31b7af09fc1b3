"""An entry: what one attack or defense brings to a board, with what its paper reports beside what
was reproduced.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from backstop.platform.params import BadInput, nearest
from backstop.platform.results.figures.cells import setting
from backstop.platform.results.figures.names import Json, chain_label
from backstop.platform.results.figures.wording import percent, plural, told
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.leaderboard.entries import SHARE_FIGURES
from backstop.platform.results.leaderboard.published import Published
from backstop.platform.results.leaderboard.sheets import data_sheets
from backstop.platform.results.tracking.runs import Run
from backstop.platform.specs.part import NOTHING

ENTRY_SCHEMA = 1
MOST_NAMED = 3  # figures that a line names
OTHER = {"attack": "defense", "defense": "attack"}


class Entered(NamedTuple):
    """The chain that an entry is about."""

    side: str  # attack or defense
    chain: str


class Claim(NamedTuple):
    """A figure that a paper reports."""

    dataset: str
    against: str  # the attack that a defense met, or the defense that an attack met
    metric: str
    reported: float  # a share from 0 to 1
    where: str  # table, figure or page


def find_entered(board: Published, chain: str) -> Entered:
    """The attack or defense of a board that has this text. Raises BadInput where none has."""
    known: dict[str, str] = {}
    for run in board.runs:
        for side in OTHER:
            known[chain_label(run.spec[side], side)] = side
    for nothing in NOTHING.values():
        known.pop(nothing, None)
    if chain not in known:
        raise BadInput(f"{board.name} holds no {chain!r}; {nearest(chain, known)}")
    return Entered(known[chain], chain)


def runs_of(board: Published, entered: Entered) -> list[Run]:
    """Its runs, and in their settings those that they are compared with: of a defense FedAvg's, of
    an attack those without an attack.
    """
    side, chain = entered
    settings = {setting(run.spec) for run in board.runs if _is(run, side, chain)}
    together = []
    for run in board.runs:
        compared = not run.spec[side] or (side == "attack" and run.spec.get("dormant"))
        if setting(run.spec) in settings and (compared or _is(run, side, chain)):
            together.append(run)
    return together


def _is(run: Run, side: str, chain: str) -> bool:
    return chain_label(run.spec[side], side) == chain


def read_claims(file: Path, side: str) -> list[Claim]:
    """What a paper reports: a csv file with the columns dataset, attack (of a defense; defense of
    an attack), metric, reported, where. Raises BadInput for what cannot be read or is empty.
    """
    columns = ("dataset", OTHER[side], "metric", "reported", "where")
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{file}: cannot be read: {error}") from None
    if not rows:
        raise BadInput(f"{file}: it reports no figure; its columns are {', '.join(columns)}")
    return [_claim(row, columns, f"{file}, line {line}") for line, row in enumerate(rows, 2)]


def _claim(
    row: Mapping[str, str | None],
    columns: Sequence[str],
    place: str,
) -> Claim:
    values = [(row.get(column) or "").strip() for column in columns]
    for column, value in zip(columns, values, strict=True):
        if not value:
            raise BadInput(f"{place}: no {column}; its columns are {', '.join(columns)}")
    dataset, against, metric, text, where = values
    if metric not in SHARE_FIGURES:
        raise BadInput(f"{place}: unknown metric {metric!r}; {nearest(metric, SHARE_FIGURES)}")
    try:
        reported = float(text)
    except ValueError:
        reported = math.nan
    if not 0 <= reported <= 1:
        raise BadInput(f"{place}: reported={text!r} is no share from 0 to 1, such as 0.931")
    return Claim(dataset, against, metric, reported, where)


def entry_document(
    board: Document,
    entered: Entered,
    claims: Sequence[Claim],
) -> Document:
    """What ``entry.json`` holds; ``board`` is that of the entry's own runs."""
    side, chain = entered
    stages = [stage["name"] for run in board["runs"] for stage in _stages(run, entered)]
    sheets = data_sheets(f"{side}s", stages)
    return {
        "schema": ENTRY_SCHEMA,
        side: chain,
        "experiment": board["experiment"],
        "fingerprint": board["fingerprint"],
        "code": board["code"],
        "data_sheets": {sheet.name: sheet.text for sheet in sheets},
        "runs": [run["id"] for run in board["runs"]],
        "specs": [run["spec"] for run in board["runs"] if _stages(run, entered)],
        "figures": [line for claim in claims for line in _beside(board, entered, claim)],
    }


def _stages(run: Json, entered: Entered) -> Sequence[Json]:
    """The stages of the entry's chain in one of its own runs; none in others."""
    stages: Sequence[Json] = run["spec"][entered.side]
    return stages if chain_label(stages, entered.side) == entered.chain else ()


def _beside(
    board: Document,
    entered: Entered,
    claim: Claim,
) -> Iterator[Document]:
    """A reported figure beside each that was reproduced; beside none where there is none."""
    cells = [cell for cell in board["cells"] if _meets(cell, entered, claim)]
    for cell in cells or [None]:
        yield {
            "dataset": claim.dataset,
            OTHER[entered.side]: claim.against,
            "metric": claim.metric,
            "reported": claim.reported,
            "where": claim.where,
            "setting": cell and cell["setting"],
            "reproduced": cell and cell[claim.metric],
        }


def _meets(
    cell: Json,
    entered: Entered,
    claim: Claim,
) -> bool:
    own, against = cell[entered.side], cell[OTHER[entered.side]]
    return bool(
        own == entered.chain and against == claim.against and cell["dataset"] == claim.dataset
    )


def unreproduced(entry: Document, entered: Entered) -> str:
    """The reported figures that no run reproduces, in words; empty where there are none."""
    figures = entry["figures"]
    absent = [line for line in figures if line["reproduced"] is None]
    if not absent:
        return ""
    other = OTHER[entered.side]
    named = [
        f"{line['metric']} on {line['dataset']}, {other} {line[other]!r} ({line['where']})"
        for line in absent[:MOST_NAMED]
    ]
    if len(absent) > MOST_NAMED:
        named.append("…")
    return (
        f"no run of {entered.chain} reproduces {len(absent)} of"
        f" {plural(len(figures), 'reported figure')}: {'; '.join(named)}"
    )


def entry_text(entry: Document, entered: Entered) -> str:
    """What ``ENTRY.md`` holds: the same for people."""
    other = OTHER[entered.side]
    own = len(entry["specs"])
    others = len(entry["runs"]) - own
    lines = [
        f"# {entered.side.capitalize()}: {entered.chain}",
        "",
        f"Runs of its own: {own}; that they are compared with: {others}.",
        f"Made with {entry['fingerprint']}.",
        "`backstop verify leaderboard.json` does a sample of them again.",
    ]
    if entry["figures"]:
        lines += [
            "",
            "## Reported in the paper, reproduced here",
            "",
            f"| dataset | {other} | metric | reported (%) | where | reproduced (%) |",
            "| --- | --- | --- | ---: | --- | ---: |",
        ]
    lines += [_figure_line(line, other) for line in entry["figures"]]
    for name, text in entry["data_sheets"].items():
        lines += ["", f"## Data sheet: {name}", "", "```", text.strip(), "```"]
    return "\n".join(lines) + "\n"


def _figure_line(line: Json, other: str) -> str:
    """A line of the table: a reported figure beside the reproduced one."""
    cells = (
        line["dataset"],
        line[other],
        line["metric"],
        percent(line["reported"]),
        line["where"],
        told(line["reproduced"]) if line["setting"] else "not run",
    )
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
