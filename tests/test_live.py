"""What the terminal says of a sweep."""

from __future__ import annotations

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
