"""``backstop submit``: an entry for somebody else's board."""

from __future__ import annotations

import argparse
from pathlib import Path

from backstop.platform.commands.output import DONE, say
from backstop.platform.params import BadInput

WAYS_OUT = "run what is missing, mend the lines, or write the entry without them: --partial"


def submit(options: argparse.Namespace) -> int:
    """``backstop submit``: the runs of one attack or defense, with what its paper reports."""
    from backstop.platform.results.leaderboard.document import encode_document, write_text
    from backstop.platform.results.leaderboard.merging import merge_boards
    from backstop.platform.results.leaderboard.published import read_published
    from backstop.platform.results.leaderboard.submission import (
        entry_document,
        entry_text,
        find_entered,
        read_claims,
        runs_of,
        unreproduced,
    )
    from backstop.platform.results.tables.files import write_leaderboard

    board = read_published(Path(options.board))
    entered = find_entered(board, options.chain)
    claims = read_claims(Path(options.reported), entered.side) if options.reported else []
    own = board.only(runs_of(board, entered))
    document, runs = merge_boards([own], mix=True)  # as mixed as the board is
    entry = entry_document(document, entered, claims)
    missing = unreproduced(entry, entered)
    if missing and not options.partial:
        raise BadInput(f"{options.reported}: {missing}; {WAYS_OUT}")
    folder = Path(options.out)
    files = write_leaderboard(document, runs, folder)
    files.append(write_text(folder / "entry.json", encode_document(entry)))
    files.append(write_text(folder / "ENTRY.md", entry_text(entry, entered)))
    if missing:
        say(f"backstop: {missing}")
    say(f"wrote {', '.join(map(str, files))}")
    return DONE
