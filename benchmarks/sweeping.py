"""A sweep from its command to its leaderboard: ``python benchmarks/sweeping.py SPACE STORE``.

Prints one JSON object: of each trial, in the order of their ends, its own seconds (taking up,
rounds, evaluation) and the seconds that its process waited between the last trial's end and this
one's first round; and when the trial that ended first had begun, in seconds since the epoch.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from backstop.platform import cli
from backstop.platform.commands import live
from backstop.platform.contract import Spec
from backstop.platform.sweeps.queues import Finals

if __name__ == "__main__":
    space, store = sys.argv[1:]
    found: list[Finals] = []
    began: list[float] = []
    told = live.Watch.ended

    def ended(watch: live.Watch, spec: Spec, finals: Finals | None, stored: bool) -> None:
        """Keep what the driver is told."""
        found.append(finals or {})
        began.append(time.time() - found[-1].get("seconds", 0.0))
        told(watch, spec, finals, stored)

    live.Watch.ended = ended  # type: ignore[method-assign]
    code = cli.main(
        ["sweep", space, "--store", store, "--out", str(Path(store) / "board"), "--device", "cpu"]
    )
    figures = {name: [finals[name] for finals in found] for name in ("seconds", "waited")}
    print(json.dumps({**figures, "began": began[0]}))
    sys.exit(code)
