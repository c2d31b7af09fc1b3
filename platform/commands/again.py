"""The same command once more, in the same process, when what it ran on has died under it.

Everything in memory goes, as in a kill; what is finished is stored, the rest goes on from its
checkpoints: docs/decisions/0020.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from backstop.platform.commands.output import FAILED, say

VARIABLE = "BACKSTOP_STARTS_AGAIN"  # how often this command has begun again
MOST = 5  # times that one command begins again


def begin_again(lost: str) -> NoReturn:
    """Say what was lost, and begin the command again; end it where that has happened too often."""
    before = int(os.environ.get(VARIABLE, "0"))
    if before >= MOST:
        say(
            f"backstop: {lost} has died, which is once too often; what is finished is kept,"
            " the same command goes on from there"
        )
        os._exit(FAILED)
    say(f"backstop: {lost} has died; going on with a new one ({before + 1} of {MOST} times)")
    sys.stdout.flush()
    environment = os.environ | {VARIABLE: str(before + 1)}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606
