"""``backstop clean``: what nobody needs any more."""

from __future__ import annotations

import argparse

from backstop.platform import storage
from backstop.platform.commands.output import DONE, readable_store, say

MB = 1e6


def clean(options: argparse.Namespace) -> int:
    """``backstop clean``: say what could go, and with ``--yes`` remove it."""
    from backstop.platform.sweeps import leftovers

    folder = storage.local_folder(storage.locate(options.store))
    kinds = leftovers.find_litter(readable_store(options), folder)
    for kind in kinds:
        print(f"{kind.size / MB:9.1f} MB  {kind.pieces} {kind.what}")
        if options.yes:
            kind.remove()
    total = f"{sum(kind.size for kind in kinds) / MB:.1f} MB"
    if not kinds:
        say("nothing can go" + ("" if folder.is_dir() else f": there is no folder {folder}"))
    elif options.yes:
        say(f"freed {total}")
    else:
        say(f"{total} can go; nothing was removed: backstop clean --yes does it")
    return DONE
