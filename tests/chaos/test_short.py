"""The short form: a handful of disturbances of different kinds, and the same bytes at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import by_hand
from tests.chaos.aftermath import Before, Undisturbed, check
from tests.chaos.command import Command, temporary_folder
from tests.chaos.disturbances import Surroundings, drawn
from tests.chaos.series import disturb
from tests.chaos.shared_memory import own_memory
from tests.chaos.spaces import grid

KINDS = ("kill -9 a trial", "kill -9 the driver", "SIGTERM", "silence of a trial")
SEED = 5


@pytest.mark.timeout(900)
@pytest.mark.xdist_group("ray")
def test_a_few_disturbances_change_no_byte_and_leave_nothing_behind(tmp_path: Path) -> None:
    space = grid(rounds=100, seeds=1)
    whole = Undisturbed(*by_hand.whole(space))
    (tmp_path / "little.py").write_text(space)
    with temporary_folder() as temporary, own_memory(temporary) as memory:
        command = Command(tmp_path, temporary, memory=memory)
        before = Before.now(command)
        waiting = list(drawn(SEED, KINDS, len(KINDS)))
        happened = disturb(Surroundings(command, len(whole.ids)), waiting)
        assert len(happened) > 2, f"the sweep was over before {waiting}"
        check(command, before, whole)
