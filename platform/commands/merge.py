"""``backstop merge``: the results of several machines or people as one leaderboard."""

from __future__ import annotations

import argparse
from pathlib import Path

from backstop.platform.commands.board import print_board
from backstop.platform.commands.output import DONE, FAILED, say


def merge_results(options: argparse.Namespace) -> int:
    """``backstop merge``: join the runs of several boards, rank them again, write the files."""
    from backstop.platform.results.leaderboard.document import write_text
    from backstop.platform.results.leaderboard.merging import disagreements, merge_boards
    from backstop.platform.results.leaderboard.published import read_published
    from backstop.platform.results.report.page import page
    from backstop.platform.results.tables.files import write_leaderboard
    from backstop.platform.results.tracking.experiments import check_name

    if options.experiment is not None:
        check_name(options.experiment)
    boards = [read_published(Path(name)) for name in options.boards]
    if lines := disagreements(boards):
        for line in lines:
            print(line)
        say("backstop: the same specs give the same bytes, so these boards are not joined;")
        say("backstop: `backstop verify` says which of them are what their specs give")
        return FAILED
    document, runs = merge_boards(
        boards,
        experiment=options.experiment,
        mix=options.mix_fingerprints,
    )
    folder = Path(options.out)
    files = write_leaderboard(document, runs, folder)
    files.append(write_text(folder / "leaderboard.html", page(document, runs)))
    print_board(options, document)
    say(f"wrote {', '.join(map(str, files))}")
    return DONE
