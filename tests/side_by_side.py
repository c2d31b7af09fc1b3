"""What one process of pytest-xdist runs, one test after another.

The tests of a file stay together, so that they share what a fixture or a cache holds. So do the
files that start Ray for sweeps, and those that do for client actors alone: more of them at once
have more processes, and nothing is sooner. Sweeps are the longest row, so it comes first; as it
waits for other processes most of the time, there is one more process than cores
(tests/conftest.py).

pytest-xdist has groups (``--dist loadgroup``), but release 3.8 writes them into a field that
pytest 9.2 does not read any more, and says nothing; and before each test that is in no group it
counts all that its process has had.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r'xdist_group\("(\w+)"\)')  # names the row that a file is dealt in
RAY = "ray"  # that of sweeps


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # which carries no types
    """Files are dealt to the processes as these get through; those that start Ray are as one."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid.partition("::")[0])

    def _assign_work_unit(self, node: Any) -> None:
        if RAY in self.workqueue:
            self.workqueue.move_to_end(RAY, last=False)
        super()._assign_work_unit(node)


@cache
def together(file: str) -> str:
    """What a file, by its path in the repository, is dealt as."""
    row = MARK.search((ROOT / file).read_text(encoding="utf-8"))
    return row[1] if row else file
