"""How fast runs end, and what that says about the time that is left."""

from __future__ import annotations

from collections.abc import Sequence

# runs by whose ends the pace is reckoned: the last quarter, or the last so many; at least so many
QUARTER, WINDOW, AT_LEAST = 4, 20, 4
HOUR, DAY = 3600, 86400


def seconds_per_run(ends: Sequence[float]) -> float | None:
    """Seconds between the ends of the last runs, given in order; None for too few of them.

    What came before the first end, start-up and warm-ups, says nothing about the rest. Where runs
    are unlike each other a few would say little.

    >>> seconds_per_run([100.0, 102.0, 104.0, 106.0])
    2.0
    """
    recent = ends[-max(WINDOW, len(ends) // QUARTER) :]
    if len(recent) < AT_LEAST:
        return None
    return (recent[-1] - recent[0]) / (len(recent) - 1)


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours and days where there are some.

    >>> clock(65), clock(3725.9), clock(180000)
    ('1:05', '1:02:05', '2 d 2:00:00')
    """
    days, rest = divmod(int(seconds), DAY)
    hours, rest = divmod(rest, HOUR)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days} d {hours}:{minutes:02d}:{rest:02d}"
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"
