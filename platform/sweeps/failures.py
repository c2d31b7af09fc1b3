"""Whose failure it is when a trial does not end: its own, or that of what it ran on.

What a stage raises is the trial's own and final. What may pass (memory, disk, threads) and what
the platform raises is tried a few times. A worker that dies takes no blame for a lost node, however
often; where it dies again and again while its node lives, and no round is done in between, its
trial kills it: docs/decisions/0019.
"""

from __future__ import annotations

import re
import traceback
from contextlib import suppress
from pathlib import Path

from backstop.platform.training import stage_errors
from backstop.platform.training.stage_errors import PLATFORM
from backstop.platform.workers.limits import log_path
from backstop.platform.workers.warden import BEYOND

RETRIES = 2  # times that a trial is started again after an error that may pass
DEATHS = 3  # of a trial's workers in a row, their nodes alive and no round done in between
LONGEST_PAUSE = 60.0  # seconds before a trial whose workers die is started again
FRAME = re.compile(r'File "(.+)", line (\d+) in')  # of a traceback that faulthandler wrote
CALLS_STAGES = stage_errors.__file__  # what it calls is a plug-in's


class Failures:
    """What the trials of a sweep have failed of so far."""

    def __init__(self) -> None:
        """Nothing has failed."""
        self.errors: dict[str, int] = {}
        self.deaths: dict[str, tuple[int, int]] = {}  # rounds that were done, deaths there
        self.losses: dict[str, int] = {}  # of workers, whoever is to blame

    def final_error(self, name: str) -> bool:
        """The trial has raised what may pass: whether that was once too often."""
        self.errors[name] = self.errors.get(name, 0) + 1
        return self.errors[name] > RETRIES

    def final_death(self, name: str, rounds: int) -> bool:
        """The trial's worker has died after so many rounds, its node has not: whether the trial is
        to blame.
        """
        self.lost(name)
        before, deaths = self.deaths.get(name, (rounds, 0))
        deaths = deaths + 1 if before == rounds else 1
        self.deaths[name] = rounds, deaths
        return deaths >= DEATHS

    def lost(self, name: str) -> None:
        """The trial has lost its worker."""
        self.losses[name] = self.losses.get(name, 0) + 1

    def pause(self, name: str) -> float:
        """Seconds to wait before the trial begins again."""
        losses = min(self.losses.get(name, 0), 10)
        return min(2.0**losses, LONGEST_PAUSE) if losses else 0.0


def write_log(logs: Path, name: str, error: BaseException) -> None:
    """Keep the whole trace of what ended a trial; a disk that is full keeps none. Where a client
    actor went beyond a limit, what it says of that stays.
    """
    if limit_reason(logs, name):
        return
    path = log_path(logs, name)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")


def forget_log(logs: Path, name: str) -> None:
    """The trial begins: what it failed of before is past."""
    with suppress(OSError):
        log_path(logs, name).unlink(missing_ok=True)


def limit_reason(logs: Path, name: str) -> str:
    """How a trial went beyond its limits, and where it was then; empty where it did not."""
    try:
        text = log_path(logs, name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    if not text.startswith(BEYOND):
        return ""
    reason, _, trace = text.removeprefix(BEYOND).partition("\n")
    where = _plugin_line(trace)
    return f"{reason} ({where})" if where else reason


def _plugin_line(trace: str) -> str:
    """The line of the plug-in that was running: from the platform's call of a stage inwards, the
    first frame that is not the platform's.
    """
    inner = ""
    for file, line in FRAME.findall(trace):  # the most recent frame first
        if Path(file).resolve() == Path(CALLS_STAGES).resolve():
            return inner
        if not Path(file).resolve().is_relative_to(PLATFORM):
            inner = f"{Path(file).name}:{line}"
    return ""
