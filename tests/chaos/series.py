"""A sweep under a series of disturbances, from the first command to the one that ends with 0."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tests.chaos.command import LOOKS_S
from tests.chaos.disturbances import ALL, BEGUN, ONE_MORE, RAY, Disturbance, Surroundings


def disturb(around: Surroundings, waiting: list[Disturbance]) -> list[Disturbance]:
    """Give the command, let happen what waits, and give the command again where it has ended with
    anything but 0. What has happened; what the sweep has left no time for goes on waiting; what it
    has not had the process for any more comes sooner, behind all others.

    A command that nothing happens to ends with 0.
    """
    command = around.command
    happened: list[Disturbance] = []
    while True:
        command.start()
        before = len(happened)
        while waiting and _reached(around, waiting[0]):
            command.note(str(waiting[0]))
            disturbance = waiting.pop(0)
            if not disturbance.happen(around):
                waiting.append(disturbance.sooner())
                continue
            happened.append(disturbance)
            if disturbance.ends_command:
                break
        if command.wait() == 0:
            return happened
        assert len(happened) > before, command.log.read_text()


def _reached(around: Surroundings, disturbance: Disturbance) -> bool:
    """Wait for the moment of a disturbance; False where the command has ended before."""
    command = around.command
    done = command.finished()
    reached: Mapping[str, Callable[[], bool]] = {
        BEGUN: lambda: True,
        RAY: lambda: bool(command.processes("GCS")),
        ONE_MORE: lambda: command.finished() > done,
        ALL: lambda: command.finished() >= around.total,
    }
    looks = reached.get(disturbance.stage, lambda: bool(command.processes("trial")))
    while not looks():
        if command.over:
            return False
        time.sleep(LOOKS_S)
    time.sleep(disturbance.after_s)
    return not command.over
