"""A space swept without any disturbance, once for all tests of a session."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.aftermath import Before, Undisturbed, board, check, trial_ids
from tests.chaos.command import Command, temporary_folder
from tests.chaos.shared_memory import own_memory


@cache
def undisturbed(space: str) -> Undisturbed:
    """How the sweep of a space ends that nothing has happened to. It is held to the same: it has
    left nothing behind either.
    """
    with (
        TemporaryDirectory() as folder,
        temporary_folder() as temporary,
        own_memory(temporary) as memory,
    ):
        (Path(folder) / "little.py").write_text(space)
        command = Command(Path(folder), temporary, memory=memory)
        before = Before.now(command)
        command.start()
        assert command.wait() == 0, command.log.read_text()
        found = Undisturbed(board(command), trial_ids(command))
        assert len(set(found.ids)) == len(found.ids) > 0
        check(command, before, found)
        return found
