"""What the final figures of a run are worth beside those of the runs that it is compared with.

One definition each, of one seed: the leaderboard averages them over seeds, a search over its own.
"""

from __future__ import annotations

from collections.abc import Sequence


def excess_success(success: float, natural: float) -> float:
    """E in [0, 1]: how much of the room above nature an attack has taken.

    ``natural`` is the share of the same triggered inputs that get the wanted label before the same
    defense where nobody attacks.

    >>> excess_success(0.75, 0.5), excess_success(0.25, 0.5), excess_success(1.0, 1.0)
    (0.5, 0.0, 0.0)
    """
    room = 1 - natural
    if room <= 0:
        return 0.0
    return max(0.0, success - natural) / room


def missing_accuracy(undisturbed: float, accuracy: float) -> float:
    """The accuracy that is missing beside FedAvg's without any attack; 0 where there is more.

    >>> missing_accuracy(0.75, 0.5), missing_accuracy(0.75, 1.0)
    (0.25, 0.0)
    """
    return max(0.0, undisturbed - accuracy)


def has_collapsed(
    accuracy: float,
    undisturbed: float,
    start: float = 0.0,
) -> bool:
    """Whether an attack took FedAvg more than half of what it learns without one from ``start`` on.

    >>> has_collapsed(0.1, 0.9), has_collapsed(0.6, 0.9), has_collapsed(0.6, 0.9, start=0.5)
    (True, False, True)
    """
    return accuracy < start + (undisturbed - start) / 2


def defense_score(worst_excess: float, cost: float) -> float:
    """What a defense leaves of a perfect one, at most 1: the excess success of the worst attack and
    the larger of its costs in accuracy, under attack and without one, are taken off.

    >>> defense_score(0.25, 0.125)
    0.625
    """
    return 1 - worst_excess - cost


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
