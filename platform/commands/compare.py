"""``backstop compare``: two defenses of a leaderboard, or two leaderboards."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backstop.platform.commands.output import DONE, open_console, print_json, readable_store
from backstop.platform.params import BadInput, nearest

if TYPE_CHECKING:
    from rich.table import Table

    from backstop.platform.results.figures.names import Json
    from backstop.platform.results.leaderboard.document import Document


class Findings(NamedTuple):
    """A comparison as a JSON document, and for people."""

    document: Document
    tables: Sequence[Table]
    notes: Sequence[str]

    def print_on(self, console: Any) -> None:
        """The tables, then the sentences."""
        for part in (*self.tables, *self.notes):
            console.print(part, highlight=False)

    def text(self, width: int) -> str:
        """The same as one text."""
        from rich.console import Console

        console = Console(width=width, force_jupyter=False)
        with console.capture() as text:
            self.print_on(console)
        return text.get().rstrip()


def compare(options: argparse.Namespace) -> int:
    """``backstop compare A B``: two leaderboard files, or with ``--board`` or ``--experiment`` two
    defenses of one.
    """
    report = _report(options)
    if options.json:
        print_json(report.document)
        return DONE
    report.print_on(open_console())
    return DONE


def _report(options: argparse.Namespace) -> Findings:
    first, second = options.first, options.second
    if options.board and options.experiment:
        raise BadInput("--board and --experiment both say which leaderboard; give one of them")
    if options.board:
        return report_defenses(named_board(options.board), first, second)
    if options.experiment:
        return report_defenses(_ranked(options), first, second)
    return report_boards(named_board(first), named_board(second), (first, second))


def report_defenses(
    document: Json,
    first: str,
    second: str,
) -> Findings:
    """Two defenses of a leaderboard. Raises BadInput for names that no row has."""
    from backstop.platform.results.figures.names import short_names
    from backstop.platform.results.leaderboard.contrasts import contrast_defenses, leading_of
    from backstop.platform.results.tables.contrasts import defense_notes, defense_tables

    contrast = contrast_defenses(document, first, second)
    names = short_names(document)
    command = sweep_command(document["experiment"], leading_of(contrast))
    return Findings(
        {**contrast, "command": command or None},
        defense_tables(contrast, names),
        defense_notes(contrast, names, command),
    )


def report_boards(
    first: Json,
    second: Json,
    titles: Sequence[str],
) -> Findings:
    """Two leaderboards, which tables call by their titles."""
    from backstop.platform.results.figures.names import short_names
    from backstop.platform.results.leaderboard.changes import board_changes
    from backstop.platform.results.tables.contrasts import board_notes, board_tables

    changes = board_changes(first, second)
    return Findings(
        changes,
        board_tables(changes, short_names(first, second), titles),
        board_notes(changes),
    )


def _ranked(options: argparse.Namespace) -> Document:
    """The leaderboard of an experiment's finished runs."""
    from backstop.platform.results.leaderboard.boards import rank_runs
    from backstop.platform.results.tracking.experiments import check_name
    from backstop.platform.results.tracking.runs import read_runs

    name = options.experiment
    check_name(name)
    store = readable_store(options)
    return rank_runs(
        store,
        name,
        read_runs(store, name),
        mix=options.mix_fingerprints,
    ).document


def named_board(given: str) -> Document:
    """A leaderboard file, or the one in a folder. Raises BadInput with the nearest name."""
    from backstop.platform.results.leaderboard.reading import document_file, load_document

    path = document_file(Path(given))
    if not path.exists():
        raise BadInput(
            f"leaderboard {given}: there is no such file; {_near(path)}"
            " (two defenses of one leaderboard: --board FILE or --experiment NAME)"
        )
    return load_document(path)


def _near(path: Path) -> str:
    """The nearest of the files beside it."""
    names = [file.name for file in path.parent.glob("*.json")]
    return nearest(path.name, names)


def sweep_command(experiment: str, leading: Json) -> str:
    """The sweep that adds the seeds that are missing; empty where none are, or how many is not
    known. It runs what is not finished yet, so these seeds alone.
    """
    from backstop.platform import plugins

    if not leading["more_seeds"]:
        return ""
    seeds = with_more_seeds(leading["seeds"], leading["more_seeds"])
    if experiment in plugins.names("search_spaces"):
        return f"backstop sweep {experiment} --seeds {seeds}"
    return f"backstop sweep SPACE --experiment {shlex.quote(experiment)} --seeds {seeds}"


def with_more_seeds(seeds: Sequence[int], more: int) -> str:
    """These seeds and the least others, as ``--seeds`` takes them.

    >>> with_more_seeds([0, 1, 2], 4), with_more_seeds([5, 7], 2)
    ('7', '0,1,5,7')
    """
    total = len(seeds) + more
    unused = [seed for seed in range(total) if seed not in seeds]
    listed = sorted([*seeds, *unused[:more]])
    if listed == list(range(total)):
        return str(total)
    return ",".join(map(str, listed))
