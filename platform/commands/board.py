"""``backstop leaderboard``, and what ``backstop sweep`` ends with."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from backstop.platform.commands.output import (
    DONE,
    open_console,
    print_json,
    readable_store,
    say,
    say_interrupted,
)


def write_board(
    options: argparse.Namespace,
    name: str,
    planned: Mapping[str, str],
) -> None:
    """Read the finished runs back from MLflow, write the leaderboard files and print the ranked
    table.

    ``planned``, spec id → the run in words, are those that the caller knows of besides the store's.
    """
    from backstop.platform.results import page
    from backstop.platform.results.boards import rank_runs
    from backstop.platform.results.files import write_leaderboard
    from backstop.platform.results.runs import read_runs
    from backstop.platform.results.soundness import read_only
    from backstop.platform.results.store import locate_store
    from backstop.platform.results.sweeps import mark_interrupted
    from backstop.platform.results.terminal import terminal_table

    store = locate_store(Path(options.store))
    finished = read_runs(store, name)
    say_interrupted(mark_interrupted(store, Path(options.store), name))
    mix = options.mix_fingerprints
    document, runs = rank_runs(store, name, finished, mix=mix, planned=planned)
    out = Path(options.out) if options.out else Path(options.store) / "leaderboards" / name
    files = []
    if options.out or not read_only(store):
        files = [
            *write_leaderboard(document, runs, out),
            page.write_page(document, runs, store, out),
        ]
    if options.json:
        print_json(document)
    else:
        console = open_console()
        console.print(terminal_table(document, console.width))
    if files:
        say(f"wrote {', '.join(map(str, files))}")
    else:
        say(
            "the store cannot be written, so the leaderboard's files were not;"
            " --out DIR writes them elsewhere"
        )


def leaderboard(options: argparse.Namespace) -> int:
    """``backstop leaderboard``: rank what is in MLflow."""
    from backstop.platform.results.experiments import check_name

    check_name(options.experiment)
    readable_store(options)
    write_board(options, options.experiment, {})
    return DONE
