"""The Pareto front of several objectives."""

from __future__ import annotations

from collections.abc import Sequence


def unbeaten(gains: Sequence[Sequence[float]]) -> list[int]:
    """Which of the points no other one beats: at least as good in everything and better in
    something. More is better; points that are equal stand or fall together.

    >>> unbeaten([(1, 0), (0, 1), (0, 0), (1, 0)])
    [0, 1, 3]
    """
    return [index for index, gain in enumerate(gains) if not _beaten(gain, gains)]


def _beaten(gain: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    for other in others:
        as_good = all(theirs >= own for theirs, own in zip(other, gain, strict=True))
        if as_good and tuple(other) != tuple(gain):
            return True
    return False
