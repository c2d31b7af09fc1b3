"""``backstop leaderboard``, and what ``backstop sweep`` ends with."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backstop.platform import storage
from backstop.platform.commands.output import (
    DONE,
    open_console,
    print_json,
    readable_store,
    say,
    say_interrupted,
)
from backstop.platform.params import BadInput

if TYPE_CHECKING:
    from backstop.platform.results.leaderboard.boards import Ranked
    from backstop.platform.results.leaderboard.document import Document
    from backstop.platform.results.tracking.runs import Run
    from backstop.platform.results.tracking.store import Store
    from backstop.platform.sweeps.waiting import Patience


def write_board(
    options: argparse.Namespace,
    name: str,
    planned: Mapping[str, str],
    patience: Patience,
    known: Sequence[Run] = (),
) -> Ranked:
    """Read the finished runs back from MLflow, write the leaderboard files and print the ranked
    table, which is returned.

    ``planned``, spec id → the run in words, are those that the caller knows of besides the store's;
    ``patience`` is what the caller has with the store; ``known`` are the finished runs that the
    caller has read already.
    """
    from backstop.platform.results.leaderboard.boards import rank_runs
    from backstop.platform.results.leaderboard.sheets import absence_line
    from backstop.platform.results.tracking.runs import read_runs
    from backstop.platform.results.tracking.soundness import read_only
    from backstop.platform.results.tracking.sweeps import mark_interrupted

    folder = storage.locate(options.store)
    store, insist = patience.store, patience.insist
    finished = insist(lambda: read_runs(store, name, known=known))
    say_interrupted(insist(lambda: mark_interrupted(store, folder, name)))
    rank = partial(rank_runs, mix=options.mix_fingerprints, planned=planned)
    board = insist(lambda: rank(store, name, finished))
    files: list[Path] = []
    if options.out or not read_only(store):
        files = _write_files(board, store, _folder(options, name))
        _show(board.document, patience, name, files)
    print_board(options, board.document)
    _say_written(files)
    if absent := absence_line(run["spec"] for run in board.document["runs"]):
        say(f"backstop: {absent}")
    if not any(cell["attack_stages"] for cell in board.document["cells"]):
        say("backstop: no run is attacked, so there is nothing to rank the defenses by")
    return board


def _folder(options: argparse.Namespace, name: str) -> Path:
    """Where the leaderboard's files go."""
    if options.out:
        return Path(options.out)
    return storage.local_folder(storage.locate(options.store)) / "leaderboards" / name


def _write_files(
    board: Ranked,
    store: Store,
    folder: Path,
) -> list[Path]:
    """Write the leaderboard's files and its page; their paths."""
    from backstop.platform.results.report.page import write_page
    from backstop.platform.results.tables.files import write_leaderboard

    document, runs = board
    files = write_leaderboard(document, runs, folder)
    page = write_page(document, runs, store, folder)
    return [*files, page]


def _show(
    document: Document,
    patience: Patience,
    name: str,
    files: Sequence[Path],
) -> None:
    """Show the leaderboard in MLflow too, where the store takes it: it is whole without that."""
    from backstop.platform.results.tables.digest import best_row, board_note, counts
    from backstop.platform.results.tracking.exhibits import Exhibit, exhibit_board
    from backstop.platform.results.tracking.soundness import read_only

    store = patience.store
    if read_only(store):
        return
    best = dict(best_row(document))
    figures = {f"sweep/{key}": float(count) for key, count in counts(document).items()}
    defense = str(best.pop("defense", ""))
    figures |= {f"best/{key}": float(value) for key, value in best.items()}
    exhibit = Exhibit(files, partial(board_note, document), figures, defense)
    try:
        patience.insist(lambda: exhibit_board(store, name, exhibit))
    except BadInput as error:
        say(f"backstop: the leaderboard's files are not in MLflow: {error}")


def print_board(options: argparse.Namespace, document: Document) -> None:
    """Print the leaderboard as JSON or as the ranked table."""
    from backstop.platform.results.tables.terminal import terminal_tables

    if options.json:
        print_json(document)
        return
    console = open_console()
    console.print(terminal_tables(document, console.width))


def _say_written(files: Sequence[Path]) -> None:
    """Say which files were written, or why none was."""
    if files:
        from backstop.platform.results.tables.parquet import can_write_parquet

        absent = "" if can_write_parquet() else "; no Parquet: pyarrow is not installed"
        say(f"wrote {', '.join(map(str, files))}{absent}")
        return
    say(
        "the store cannot be written, so the leaderboard's files were not;"
        " --out DIR writes them elsewhere"
    )


def leaderboard(options: argparse.Namespace) -> int:
    """``backstop leaderboard``: rank what is in MLflow."""
    from backstop.platform.results.tracking.experiments import check_name
    from backstop.platform.sweeps.waiting import Patience

    check_name(options.experiment)
    patience = Patience(readable_store(options), say)
    write_board(options, options.experiment, {}, patience)
    return DONE
