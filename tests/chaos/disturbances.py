"""What happens to a sweep, and when: a list that follows from a seed.

A moment is a stage that the sweep has reached and a fraction of a second after it, so that a slow
machine sees the same kinds of moments as a fast one.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tests.chaos.command import Command
from tests.chaos.disk import Disk
from tests.chaos.processes import DRIVER
from tests.chaos.proxy import REFUSED, RESET, UNAVAILABLE
from tests.chaos.tracking import Tracking

# stages of a command, and how often something happens at each of them
BEGUN, RAY, TRIAL, ONE_MORE, ALL = "begun", "Ray starts", "a trial runs", "a run ends", "all ended"
WEIGHTS = {BEGUN: 0.1, RAY: 0.15, TRIAL: 0.25, ONE_MORE: 0.45, ALL: 0.05}
TRIALS_OWN = ("a trial", "a client actor")  # processes that are gone once all have ended
AFTER_S = 1.5  # seconds after a stage, at most
SHORT_S, LONG_S = 1.0, 8.0  # seconds that what is mended again lasts


class Surroundings(NamedTuple):
    """A sweep and what it depends on."""

    command: Command
    total: int  # runs of the sweep
    tracking: Tracking | None = None
    disk: Disk | None = None


class Disturbance(NamedTuple):
    """What happens, at what moment, for how long, and to which of several processes."""

    kind: str
    stage: str
    after_s: float
    lasts_s: float
    draw: float  # from [0, 1)

    def happen(self, around: Surroundings) -> bool:
        """Let it happen; False where what it was meant for has ended before."""
        return KINDS[self.kind](around, self)

    def sooner(self) -> Disturbance:
        """The same, in half the time."""
        return self._replace(after_s=self.after_s / 2)

    @property
    def ends_command(self) -> bool:
        """Whether the driver does not go on after it."""
        return self.kind in ENDS


Act = Callable[[Surroundings, Disturbance], bool]


def drawn(seed: int, kinds: Sequence[str], count: int) -> Iterator[Disturbance]:
    """So many disturbances: every kind once, in any order, then every kind once more."""
    random = np.random.default_rng(seed)
    deck: list[str] = []
    for _ in range(count):
        deck = deck or random.permutation(kinds).tolist()
        kind = deck.pop()
        stage = str(random.choice(list(WEIGHTS), p=list(WEIGHTS.values())))
        gone = stage == ALL and kind.endswith(TRIALS_OWN)
        yield Disturbance(
            kind=kind,
            stage=ONE_MORE if gone else stage,
            after_s=random.uniform(0, AFTER_S),
            lasts_s=random.uniform(SHORT_S, LONG_S),
            draw=random.uniform(),
        )


def _kill(kind: str) -> Act:
    def act(around: Surroundings, disturbance: Disturbance) -> bool:
        hit = around.command.pick(kind, disturbance.draw)
        return hit is not None and around.command.send(hit, signal.SIGKILL)

    return act


def _silence(kind: str) -> Act:
    """What does not answer for a while is what a network without a way is to the others."""

    def act(around: Surroundings, disturbance: Disturbance) -> bool:
        command = around.command
        silent = command.pick(kind, disturbance.draw)
        if silent is None or not command.send(silent, signal.SIGSTOP):
            return False
        time.sleep(disturbance.lasts_s)
        command.send(silent, signal.SIGCONT)
        return True

    return act


def _signals(number: signal.Signals, times: int = 1) -> Act:
    def act(around: Surroundings, disturbance: Disturbance) -> bool:
        command = around.command
        driver = command.pick(DRIVER, 0)
        if driver is None or not command.send(driver, number):
            return False
        for _ in range(times - 1):
            time.sleep(disturbance.lasts_s / LONG_S)
            command.send(driver, number)
        return True

    return act


def _kill_all(around: Surroundings, _: Disturbance) -> bool:
    there = not around.command.over
    around.command.kill_all()
    return there


def _stop_server(around: Surroundings, disturbance: Disturbance) -> bool:
    assert around.tracking is not None
    around.tracking.server.stop()
    time.sleep(disturbance.lasts_s)
    around.tracking.server.start()
    return True


def _cut(how: str) -> Act:
    def act(around: Surroundings, disturbance: Disturbance) -> bool:
        assert around.tracking is not None
        around.tracking.proxy.cut(how)
        time.sleep(disturbance.lasts_s)
        around.tracking.proxy.mend()
        return True

    return act


def _fill_disk(around: Surroundings, disturbance: Disturbance) -> bool:
    assert around.disk is not None
    around.disk.fill()
    time.sleep(disturbance.lasts_s)
    around.disk.empty()
    return True


def _only_read(around: Surroundings, _: Disturbance) -> bool:
    """The machine stops, and comes up again with a disk that can only be read; the command is given
    and refused.
    """
    assert around.disk is not None
    command = around.command
    command.kill_all()
    command.wait()
    around.disk.only_read()
    command.start()
    refused = command.wait()
    around.disk.write_again()
    assert refused != 0, command.log.read_text()
    return True


# An idle worker is not among them: there is one only while Ray starts, and Ray waits for it then,
# without end, whoever has died (ray-project/ray#40131).
PROCESSES: Mapping[str, Act] = {
    "kill -9 a trial": _kill("trial"),
    "kill -9 the warden of a trial": _kill("warden"),
    "kill -9 the raylet": _kill("raylet"),
    "kill -9 the GCS": _kill("GCS"),
    "kill -9 an agent": _kill("agent"),
    "kill -9 the log monitor": _kill("log monitor"),
    "kill -9 the autoscaler": _kill("autoscaler"),
    "kill -9 the dashboard": _kill("dashboard"),
    "kill -9 the driver": _kill(DRIVER),
    "kill -9 everything": _kill_all,
    "SIGTERM": _signals(signal.SIGTERM),
    "SIGTERM twice": _signals(signal.SIGTERM, 2),
    "SIGINT": _signals(signal.SIGINT),
    "SIGINT twice": _signals(signal.SIGINT, 2),
    "SIGHUP": _signals(signal.SIGHUP),
    "SIGHUP twice": _signals(signal.SIGHUP, 2),
    "silence of a trial": _silence("trial"),
    "silence of the raylet": _silence("raylet"),
    "silence of the GCS": _silence("GCS"),
    "silence of the driver": _silence(DRIVER),
}
ACTORS: Mapping[str, Act] = {
    "kill -9 a client actor": _kill("client actor"),
    "silence of a client actor": _silence("client actor"),
}
TRACKING: Mapping[str, Act] = {
    "kill -9 the tracking server": _stop_server,
    "connections refused": _cut(REFUSED),
    "connections reset": _cut(RESET),
    "answers of 503": _cut(UNAVAILABLE),
}
DISK: Mapping[str, Act] = {"disk full": _fill_disk, "disk can only be read": _only_read}
KINDS = {**PROCESSES, **ACTORS, **TRACKING, **DISK}
ENDS = {
    "kill -9 the driver",
    "kill -9 everything",
    "disk can only be read",
    *(kind for kind in PROCESSES if kind.startswith("SIG")),
}
