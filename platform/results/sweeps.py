"""The parent run of a sweep: its plan, and what became of runs that nobody works on any more."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backstop import __version__
from backstop.platform.params import BadInput
from backstop.platform.results import drivers
from backstop.platform.results.log import DRIVER, TAG_LIMIT, TAGS_AT_ONCE
from backstop.platform.results.store import (
    LINE_LIMIT,
    Store,
    database_file,
    mlflow_client,
    read_only,
    refusing,
    search_runs,
    sql_literal,
    still_there,
)

PLAN = "backstop.plan"  # tag of a sweep's run: how many tags PLAN.0, PLAN.1 … hold its plan


class Interrupted(NamedTuple):
    """How many RUNNING sweeps, and runs of single specs, nobody works on any more."""

    sweeps: int
    runs: int


def open_parent(
    store: Store, experiment_id: str, space: str, *, note: str = "", driver: str = ""
) -> str:
    """The MLflow run id of the sweep's parent run, made when it is missing, and RUNNING from now on
    where it has a driver.
    """
    with refusing(store):
        condition = (
            f"tags.`backstop.kind` = 'sweep' AND tags.`backstop.space` = '{sql_literal(space)}'"
        )
        for run in search_runs(store, experiment_id, condition):
            if driver:
                mlflow_client(store.uri).update_run(run.info.run_id, status="RUNNING")
                mlflow_client(store.uri).set_tag(run.info.run_id, DRIVER, driver)
            return str(run.info.run_id)
        tags = {
            "backstop.kind": "sweep",
            "backstop.space": space,
            "backstop.version": __version__,
            "mlflow.source.name": "backstop",
            **({"mlflow.note.content": note[:TAG_LIMIT]} if note else {}),
            **({DRIVER: driver} if driver else {}),
        }
        return str(
            mlflow_client(store.uri)
            .create_run(experiment_id, tags=tags, run_name=f"sweep {space}")
            .info.run_id
        )


def write_plan(store: Store, run_id: str, planned: Mapping[str, str]) -> None:
    """Write into a sweep's parent run what it is about to do: spec id → the run in words.

    It takes the place of an earlier plan. It stands in tags, which need no artifact folder.
    """
    from mlflow.entities import RunTag

    pieces = [""]
    for spec_id, words in sorted(planned.items()):
        line = f"{spec_id} {words[:LINE_LIMIT]}\n"
        if len(pieces[-1]) + len(line) > TAG_LIMIT:
            pieces.append("")
        pieces[-1] += line
    found = [RunTag(f"{PLAN}.{place}", piece) for place, piece in enumerate(pieces)]
    with refusing(store):
        for first in range(0, len(found), TAGS_AT_ONCE):
            mlflow_client(store.uri).log_batch(run_id, tags=found[first : first + TAGS_AT_ONCE])
        mlflow_client(store.uri).set_tag(run_id, PLAN, str(len(found)))


def read_plan(store: Store, experiment: str) -> dict[str, str]:
    """Spec id → the run in words, of all that the experiment's sweeps last set out to do."""
    listed: dict[str, str] = {}
    with refusing(store):
        found = mlflow_client(store.uri).get_experiment_by_name(experiment)
        if found is None:
            return {}
        for run in search_runs(store, found.experiment_id, "tags.`backstop.kind` = 'sweep'"):
            labels = run.data.tags
            for place in range(int(labels.get(PLAN, "0"))):
                lines = labels.get(f"{PLAN}.{place}", "").splitlines()
                listed |= {
                    spec_id: words for spec_id, _, words in (line.partition(" ") for line in lines)
                }
    return listed


def close_parent(store: Store, run_id: str, status: str) -> bool:
    """Set a run's status (FINISHED, FAILED, KILLED); False when the store cannot be reached."""
    try:
        with refusing(store):
            still_there(store)
            mlflow_client(store.uri).set_terminated(run_id, status)
    except BadInput:
        return False
    return True


def drivers_home(store: Store, folder: Path) -> Path:
    """Where drivers are known: beside the database that they write to, else in the ``--store``
    folder.
    """
    file = database_file(store)
    return file.parent if file is not None else folder.expanduser().resolve()


def stop_runs(store: Store, experiment_id: str, driver: str) -> bool:
    """Mark what a driver leaves unfinished as KILLED; False when the store cannot be reached."""
    try:
        with refusing(store):
            still_there(store)
            condition = f"attributes.status = 'RUNNING' AND tags.`{DRIVER}` = '{driver}'"
            for run in list(search_runs(store, experiment_id, condition)):
                mlflow_client(store.uri).set_terminated(run.info.run_id, "KILLED")
    except BadInput:
        return False
    return True


def mark_interrupted(store: Store, folder: Path, experiment: str | None = None) -> Interrupted:
    """What, in one MLflow experiment or in all, has lost its driver to a kill since somebody looked
    last. It is marked as KILLED where the store can be written; the same command takes it up again.
    """
    place, client = drivers_home(store, folder), mlflow_client(store.uri)
    with refusing(store):
        where = [
            item.experiment_id
            for item in client.search_experiments()
            if experiment in (None, item.name)
        ]
        running = [
            run
            for number in where
            for run in search_runs(store, number, "attributes.status = 'RUNNING'")
        ]
        known = {run.info.run_id: run.data.tags.get(DRIVER, "") for run in running}
        dead = {name for name in set(known.values()) - {""} if _died(store, place, name)}
        lost = [run for run in running if known[run.info.run_id] in dead]
    if not read_only(store):
        # a full disk: whoever looks after that marks them
        with suppress(BadInput), refusing(store):
            for run in lost:
                client.set_terminated(run.info.run_id, "KILLED")
            for name in dead:
                drivers.forget(place, name)
    sweeps = sum(run.data.tags.get("backstop.kind") == "sweep" for run in lost)
    return Interrupted(sweeps, len(lost) - sweeps)


def _died(store: Store, place: Path, name: str) -> bool:
    """A driver that a database's own folder does not know has ended; one on a server may work
    beside another folder.
    """
    gone = drivers.gone(place, name)
    return database_file(store) is not None if gone is None else gone
