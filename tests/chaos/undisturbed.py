"""A space swept without any disturbance, once for all tests of a session."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.aftermath import Before, Undisturbed, board, check, trial_ids
from tests.chaos.command import Command, temporary_folder


@cache
def undisturbed(space: str) -> Undisturbed:
    """How the sweep of a space ends that nothing has happened to. It is held to the same: it has
    left nothing behind either.
    """
    with TemporaryDirectory() as folder, temporary_folder() as temporary:
        (Path(folder) / "little.py").write_text(space)
        command = Command(Path(folder), temporary)
        before = Before.now()
        command.start()
        assert command.wait() == 0, command.log.read_text()
        found = Undisturbed(board(command), trial_ids(command))
        assert len(set(found.ids)) == len(found.ids) > 0
        check(command, before, found)
        return found
