"""What the terminal shows while a sweep runs: on stderr, a live table for a person, plain lines for
a log file.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from backstop.platform.commands.output import percent_text
from backstop.platform.results.tracking.pace import clock, seconds_per_run
from backstop.platform.specs.part import chain_text
from backstop.platform.specs.spec import DORMANT, Spec
from backstop.platform.sweeps.queues import Finals, Queue

SHOWN = 8  # finished runs listed in the live table
LOG_EVERY = 10.0  # seconds between the lines of a log file where runs have ended
LOG_AT_LEAST = 300.0  # the same where none has
# of the live table: (heading, alignment)
TABLE_COLUMNS: Sequence[tuple[str, Literal["left", "right"]]] = (
    ("attack", "left"),
    ("defense", "left"),
    ("seed", "right"),
    ("round", "right"),
    ("accuracy", "right"),
    ("attack success", "right"),
)


class Watch:
    """Counts the trials of a sweep and draws them. The plan grows where a search asks for more."""

    def __init__(self, title: str, queue: Queue) -> None:
        """The queue knows how many runs there are in all, and how many were done already."""
        self.title, self.queue = title, queue
        # what is no terminal gets plain lines, whatever FORCE_COLOR says
        to_terminal = sys.stderr.isatty()
        self.console = Console(stderr=True, force_terminal=None if to_terminal else False)
        self.drawn = to_terminal and not self.console.is_dumb_terminal
        self.running: dict[str, tuple[Spec, int, Mapping[str, float]]] = {}
        self.finished = 0
        self.last: deque[tuple[Spec, Finals]] = deque(maxlen=SHOWN)  # of the finished ones
        self.best: tuple[Spec, Finals] | None = None
        self.failed: list[Spec] = []
        self.unstored: list[Spec] = []  # done, but not in the store
        self.ends: list[float] = []  # when runs ended
        self.began = time.monotonic()
        self.logged = 0.0
        self.counted = ""  # as the last line had it
        self.live = Live(
            get_renderable=self.draw,
            console=self.console,
            refresh_per_second=2,
            transient=True,
        )

    def __enter__(self) -> Self:
        """Begin to draw, where somebody is looking."""
        if self.drawn:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last line standing."""
        if self.drawn:
            self.live.stop()
        self.print_headline()

    def started(self, spec: Spec) -> None:
        """A trial has its resources."""
        self.running[spec.id] = (spec, 0, {})

    def result(
        self,
        spec: Spec,
        rounds: int,
        last: Mapping[str, float],
    ) -> None:
        """A trial has done some rounds."""
        self.running[spec.id] = (spec, rounds, last)
        self.log()

    def ended(
        self,
        spec: Spec,
        finals: Finals | None,
        stored: bool,
    ) -> None:
        """A trial is done, or has failed for good; whether its run is in the store."""
        self.running.pop(spec.id, None)
        self.ends.append(time.monotonic())
        if finals is None:
            self.failed.append(spec)
        else:
            self._note(spec, finals)
            self.unstored += [spec] * (not stored)
        self.log()

    def _note(self, spec: Spec, finals: Finals) -> None:
        """Count a finished run. The best is an attacked one with the largest accuracy minus attack
        success, the first of equal ones.
        """
        self.finished += 1
        self.last.appendleft((spec, finals))
        if "final/attack_success_rate" not in finals or spec.dormant:
            return
        if self.best is None or _score(finals) > _score(self.best[1]):
            self.best = (spec, finals)

    def log(self) -> None:
        """A line for a log file, now and then."""
        now = time.monotonic()
        if self.drawn or now - self.logged <= LOG_EVERY:
            return
        counts = self._counts().plain
        if counts != self.counted or now - self.logged > LOG_AT_LEAST:
            self.logged, self.counted = now, counts
            self.print_headline()

    def print_headline(self) -> None:
        """The headline as one line of text."""
        self.console.print(self.headline(), highlight=False, soft_wrap=True)

    def headline(self) -> Text:
        """Runs done, running, failed; time left; the best so far."""
        line = self._counts()
        line.append(f" · {clock(time.monotonic() - self.began)} elapsed")
        if (seconds_left := self.seconds_left(self._runs_left())) is not None:
            line.append(f" · about {clock(seconds_left)} left")
        if self.best is not None:
            line.append_text(_best_so_far(*self.best))
        return line

    def _counts(self) -> Text:
        """How many runs are done, running, failed and not stored."""
        done = self._ended() - len(self.unstored)
        progress = f"{self.title}: {done}/{self.queue.expected} done"
        line = Text(f"{progress} · {len(self.running)} running", style="bold")
        if self.failed:
            line.append(f" · {len(self.failed)} failed", style="bold red")
        if self.unstored:
            line.append(f" · {len(self.unstored)} not stored yet", style="bold red")
        return line

    def _ended(self) -> int:
        """Runs that have finals, now or from earlier."""
        return self.queue.skipped + self.finished

    def _runs_left(self) -> int:
        return self.queue.expected - self._ended() - len(self.failed)

    def seconds_left(self, runs: int) -> float | None:
        """How long so many runs take, by the last ones; None where that cannot be told yet."""
        pace = seconds_per_run(self.ends)
        return None if pace is None or runs <= 0 else pace * runs

    def draw(self) -> Group:
        """The live table: running trials above the last finished ones."""
        table = _empty_table()
        for spec, rounds, last in self.running.values():
            progress = f"{rounds}/{spec.rounds}"
            table.add_row(*_columns(spec, progress, last, "round"), style="cyan")
        for spec in self.failed[-SHOWN:]:
            table.add_row(*_columns(spec, "failed", {}, "final"), style="red")
        for spec, finals in self.last:
            progress = str(spec.rounds)
            table.add_row(*_columns(spec, progress, finals, "final"))
        return Group(self.headline(), table)


def _empty_table() -> Table:
    """The live table without its rows."""
    table = Table(
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    for heading, side in TABLE_COLUMNS:
        table.add_column(
            heading,
            justify=side,
            no_wrap=True,
            overflow="ellipsis",
        )
    return table


def _score(finals: Finals) -> float:
    """Accuracy minus attack success, the worst in place of what is missing."""
    accuracy = finals.get("final/clean_accuracy", 0.0)
    success = finals.get("final/attack_success_rate", 1.0)
    return accuracy - success


def _best_so_far(spec: Spec, finals: Finals) -> Text:
    accuracy = percent_text(finals.get("final/clean_accuracy"))
    success = percent_text(finals.get("final/attack_success_rate"))
    text = Text(f" · best so far {chain_text(spec.defense, 'defense')}: ")
    return text.append(f"accuracy {accuracy}, attack success {success}", style="green")


def _columns(
    spec: Spec,
    progress: str,
    metrics: Mapping[str, float],
    group: str,
) -> tuple[str, ...]:
    """A row of the live table."""
    return (
        chain_text(spec.attack, "attack") + DORMANT * spec.dormant,
        chain_text(spec.defense, "defense"),
        str(spec.seed),
        progress,
        percent_text(metrics.get(f"{group}/clean_accuracy")),
        percent_text(metrics.get(f"{group}/attack_success_rate")),
    )
