"""How a sweep on a tracking server shows others that it is at work, where no folder is shared.

The sweep's run has a counter that goes up while it is at work. Whoever would like to work on the
same experiment looks whether it does: no two machines' clocks are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from backstop.platform.params import BadInput
from backstop.platform.results.tracking import drivers
from backstop.platform.results.tracking.log import DRIVER
from backstop.platform.results.tracking.store import (
    Store,
    database_file,
    mlflow_client,
    refusing,
    search_runs,
)

COUNTER = "backstop.beat"  # tag of a sweep's run
STEP_S = 20.0  # seconds between two steps of the counter
# seconds without a step after which nobody is at work: a step may be late, or lost with a request
SILENT_S = 3 * STEP_S
LOOK = 2.0  # seconds between two looks


@contextmanager
def shown(store: Store, run_id: str) -> Iterator[None]:
    """Count up in the sweep's run while the block lasts. A database file needs no sign: whoever
    sees it sees its drivers' locks.
    """
    if database_file(store) is not None:
        yield
        return
    ended = Event()

    def count() -> None:
        step = 0
        while not ended.wait(STEP_S):
            step += 1
            with suppress(BadInput), refusing(store):  # a server that is away
                mlflow_client(store.uri).set_tag(run_id, COUNTER, str(step))

    counting = Thread(target=count, daemon=True)
    counting.start()
    try:
        yield
    finally:
        ended.set()


def check_nobody_else(
    store: Store,
    home: Path,
    experiment_id: str,
    say: Callable[[str], None],
) -> None:
    """Raise BadInput where a sweep that the folder of drivers does not know is at work on the
    experiment of a server.
    """
    if database_file(store) is not None:
        return
    before = _counters(store, home, experiment_id)
    if not before:
        return
    say(f"backstop: a sweep from elsewhere may be at work here; looking for up to {SILENT_S:.0f} s")
    deadline = time.monotonic() + SILENT_S
    while time.monotonic() < deadline:
        time.sleep(LOOK)
        now = _counters(store, home, experiment_id)
        for run_id, step in now.items():
            if step != before.get(run_id):
                raise BadInput(
                    f"a sweep from another machine is at work on this experiment (MLflow run "
                    f"{run_id}); wait for it, end it, or name another --experiment"
                )
        if not now:
            return


def _counters(store: Store, home: Path, experiment_id: str) -> dict[str, str]:
    """Of each RUNNING sweep whose driver the folder does not know: its run id → its counter."""
    condition = "attributes.status = 'RUNNING' AND tags.`backstop.kind` = 'sweep'"
    with refusing(store):
        return {
            run.info.run_id: run.data.tags.get(COUNTER, "")
            for run in search_runs(store, experiment_id, condition)
            if drivers.gone(home, run.data.tags.get(DRIVER, "")) is None
        }
