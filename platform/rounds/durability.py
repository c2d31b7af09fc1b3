"""How long a backdoor takes to come and how long it lasts, by its attack success round after round.

Spans are rounds, told to the resolution of the evaluations: a backdoor is taken to be there until
an evaluation has found it gone. Where every k-th round is evaluated, each span is up to k - 1
rounds too long, and what goes and comes back between two evaluations was never away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

HALF = 0.5
Rates = Sequence[tuple[int, float]]  # (round, a share), in the order of the rounds


class Schedule(NamedTuple):
    """When an attack attacks: every so many rounds from ``start`` on, before ``stop``."""

    start: int
    stop: int | None
    every: int = 1

    @property
    def last(self) -> int | None:
        """The last round that is attacked; None where the attack does not stop.

        >>> Schedule(0, 8, 8).last, Schedule(10, 20).last
        (0, 19)
        """
        if self.stop is None:
            return None
        turns = (self.stop - 1 - self.start) // self.every
        return self.start + self.every * turns

    def during(self, rates: Rates) -> Rates:
        """What was evaluated while the attack was on."""
        end = math.inf if self.stop is None else self.stop
        return [item for item in rates if self.start <= item[0] < end]

    def after(self, rates: Rates) -> Rates:
        """What was evaluated after the attack's last round; nothing where it does not stop."""
        last = self.last
        return [] if last is None else [item for item in rates if item[0] > last]


def lifetime(
    rates: Rates,
    twin: Mapping[int, float],
    schedule: Schedule,
) -> dict[str, float]:
    """How long a backdoor takes and how long it lasts, beside what its inputs achieve anyway.

    ``rates`` are (round, attack success) of the attacked run, ``twin`` round → attack success of
    its clean twin. What counts is the excess over the twin; only rounds that both have are read.
    ``time_to_backdoor``: rounds from the attack's first until success is half-way from the twin's
    to 1; missing where it never is. ``durability``: rounds after the attack's last in which the
    excess is still at least half of what it was there; missing where the attack does not stop or
    never came half-way. ``still_active`` is 1 where it never fell so far: then durability is the
    time that was watched.

    >>> attacked = list(enumerate([0.2, 0.8, 0.6, 0.3]))
    >>> lifetime(attacked, dict.fromkeys(range(4), 0.0), Schedule(0, 2))
    {'time_to_backdoor': 2.0, 'durability': 1.0, 'still_active': 0.0}
    >>> lifetime(attacked, dict.fromkeys(range(4), 0.59), Schedule(0, 2))["durability"]
    0.0
    """
    excess = [(at, rate - twin[at]) for at, rate in rates if at in twin]
    planted = _first_half_way(schedule.during(excess), twin)
    if planted is None:
        return {}
    spans = {"time_to_backdoor": float(planted + 1 - schedule.start)}
    last = schedule.last
    if last is not None:
        afterwards = [item for item in excess if item[0] >= last]
        spans |= _durability(afterwards, last)
    return spans


def lifespan(rates: Rates, schedule: Schedule) -> dict[str, float]:
    """How long attack success itself lasts, whatever the same inputs achieve anyway.

    ``rates`` are (round, attack success). ``lifespan``: rounds after the attack's last before
    success is below one half for the first time; 0 where it is at once. Missing where the attack
    does not stop, nothing was evaluated after it, or success was never one half, from the attack's
    first round to the first evaluation after its last. ``still_over_half`` is 1 where it never fell
    so far: then the lifespan is the time that was watched.

    Source: the backdoor lifespan of Z. Zhang et al., "Neurotoxin: Durable Backdoors in Federated
    Learning", ICML 2022, with a threshold of one half.

    >>> lifespan(list(enumerate([0.2, 0.8, 0.6, 0.5, 0.4])), Schedule(0, 2))
    {'lifespan': 2.0, 'still_over_half': 0.0}
    """
    last, afterwards = schedule.last, schedule.after(rates)
    if last is None or not afterwards:
        return {}
    first_after, _ = afterwards[0]
    planted = [rate for at, rate in rates if schedule.start <= at <= first_after]
    if max(planted) < HALF:
        return {}
    rounds, still_over_half = _lasted(afterwards, HALF, last)
    return {
        "lifespan": rounds,
        "still_over_half": still_over_half,
    }


def _first_half_way(excess: Iterable[tuple[int, float]], twin: Mapping[int, float]) -> int | None:
    """The first round in which success is half-way from the twin's to 1; None without one."""
    for at, above in excess:
        if 0 < above >= (1 - twin[at]) / 2:
            return at
    return None


def _durability(excess: Rates, last: int) -> dict[str, float]:
    """How long an attack's excess (round, success) outlives its last round, as `lifetime` says."""
    if len(excess) < 2:
        return {}
    at_first = excess[0][1]
    if not at_first > 0:  # neither a NaN
        return {}
    rounds, still_active = _lasted(excess[1:], at_first / 2, last)
    return {
        "durability": rounds,
        "still_active": still_active,
    }


def _lasted(
    rates: Rates,
    least: float,
    last: int,
) -> tuple[float, float]:
    """Rounds after ``last`` before a rate is less than ``least``, and 1 where none ever is."""
    for at, rate in rates:
        if rate < least:
            return float(at - 1 - last), 0.0
    end, _ = rates[-1]
    return float(end - last), 1.0
