"""What the terminal says of a sweep."""

from __future__ import annotations

import io
import sys
import time

import pytest

from backstop.platform.commands import live
from backstop.platform.contract import Spec
from backstop.platform.sweeps.queues import Fixed, Queue


def test_the_time_left_is_reckoned_by_the_pace_of_the_last_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Start-up and warm-ups before the first end do not count, nor does what was slow long ago."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    spec = Spec()
    planned = [spec.replace(seed=seed) for seed in range(100)]
    queue = Queue(Fixed(planned), {spec.id: {} for spec in planned[:10]})
    assert queue.fill()
    watch = live.Watch("space", queue)

    def end(at: float) -> str:
        now[0] = at
        watch.ended(spec, {}, stored=True)
        return watch.headline().plain

    assert "left" not in end(1000.0) and "left" not in end(1010.0) and "left" not in end(1020.0)
    # 86 runs at 10 seconds
    assert "14/100 done" in (line := end(1030.0)) and "about 14:20 left" in line
    for run in range(30):
        line = end(1030.0 + run + 1)
    assert "44/100 done" in line and "about 0:56 left" in line
    assert "left" not in [end(1060.0 + run) for run in range(1, 57)][-1]


def watched(stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> tuple[live.Watch, list[float]]:
    """A sweep of three runs, and its clock, which begins at 1000 s."""
    now = [1000.0]
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    queue = Queue(Fixed([Spec(seed=seed) for seed in range(3)]), {})
    assert queue.fill()
    return live.Watch("space", queue), now


def test_a_pipe_gets_plain_lines_when_something_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stderr = io.StringIO()
    watch, now = watched(stderr, monkeypatch)
    with watch:
        watch.started(Spec())
        for second in range(1000, 1600):
            now[0] = float(second)
            watch.result(Spec(), 1, {})
        watch.ended(Spec(), {"final/clean_accuracy": 0.5}, stored=True)
    text = stderr.getvalue()
    assert "\x1b" not in text
    assert text.splitlines() == [
        "space: 0/3 done · 1 running · 0:00 elapsed",
        "space: 0/3 done · 1 running · 5:01 elapsed",
        "space: 1/3 done · 0 running · 9:59 elapsed",
        "space: 1/3 done · 0 running · 9:59 elapsed",
    ]


def test_a_terminal_without_cursor_gets_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Teletype(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "dumb")
    stderr = Teletype()
    watch, _ = watched(stderr, monkeypatch)
    with watch:
        watch.started(Spec())
        watch.result(Spec(), 1, {})
    assert stderr.getvalue().startswith("space: 0/3 done · 1 running · 0:00 elapsed\n")
    assert "\x1b" not in stderr.getvalue()
