"""The parent run of a sweep: its plan, and what became of runs that nobody works on any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backstop import __version__
from backstop.platform import storage
from backstop.platform.params import BadInput
from backstop.platform.results.figures.wording import plural
from backstop.platform.results.tracking import drivers
from backstop.platform.results.tracking.description import TAG_LIMIT
from backstop.platform.results.tracking.log import DRIVER
from backstop.platform.results.tracking.soundness import read_only
from backstop.platform.results.tracking.store import (
    LINE_LIMIT,
    Store,
    check_still_there,
    database_file,
    mlflow_client,
    refusing,
    search_runs,
    sql_literal,
)
from backstop.platform.storage import Location

if TYPE_CHECKING:
    from mlflow.entities import Run as StoredRun

TAGS_AT_ONCE = 100  # MLflow takes no more in one request
PLAN = "backstop.plan"  # tag of a sweep's run: how many tags PLAN.0, PLAN.1 … hold its plan


class Interrupted(NamedTuple):
    """How many RUNNING sweeps, and runs of single specs, nobody works on any more."""

    sweeps: int
    runs: int

    @property
    def words(self) -> str:
        """The runs, or the sweep where all of its runs have ended; empty where there is nothing."""
        if not any(self):
            return ""
        noun, count = ("run", self.runs) if self.runs else ("sweep", self.sweeps)
        was, them = ("was", "it") if count == 1 else ("were", "them")
        return (
            f"{plural(count, noun)} {was} interrupted, nobody works on {them} any more; "
            "the same command goes on from there"
        )


def open_parent(
    store: Store,
    experiment_id: str,
    space: str,
    *,
    note: str = "",
    driver: str = "",
) -> str:
    """The MLflow run id of the sweep's parent run, made when it is missing, and RUNNING from now on
    where it has a driver.
    """
    with refusing(store):
        condition = (
            f"tags.`backstop.kind` = 'sweep' AND tags.`backstop.space` = '{sql_literal(space)}'"
        )
        client = mlflow_client(store.uri)
        parent = next(search_runs(store, experiment_id, condition), None)
        if parent is None:
            tags = _parent_tags(space, note, driver)
            parent = client.create_run(experiment_id, tags=tags, run_name=f"sweep {space}")
        elif driver:
            client.update_run(parent.info.run_id, status="RUNNING")
            client.set_tag(parent.info.run_id, DRIVER, driver)
        return str(parent.info.run_id)


def _parent_tags(
    space: str,
    note: str,
    driver: str,
) -> dict[str, str]:
    tags = {
        "backstop.kind": "sweep",
        "backstop.space": space,
        "backstop.version": __version__,
        "mlflow.source.name": "backstop",
    }
    if note:
        tags["mlflow.note.content"] = note[:TAG_LIMIT]
    if driver:
        tags[DRIVER] = driver
    return tags


def write_plan(
    store: Store,
    run_id: str,
    planned: Mapping[str, str],
) -> None:
    """Write into a sweep's parent run what it is about to do: spec id → the run in words.

    It takes the place of an earlier plan. It stands in tags, which need no artifact folder.
    """
    from mlflow.entities import RunTag

    pieces = _pieces(planned)
    labels = [RunTag(f"{PLAN}.{index}", piece) for index, piece in enumerate(pieces)]
    with refusing(store):
        client = mlflow_client(store.uri)
        for first in range(0, len(labels), TAGS_AT_ONCE):
            client.log_batch(run_id, tags=labels[first : first + TAGS_AT_ONCE])
        client.set_tag(run_id, PLAN, str(len(labels)))


def _pieces(planned: Mapping[str, str]) -> list[str]:
    """The plan a line for each run, in pieces that fit into a tag."""
    pieces = [""]
    for spec_id, words in sorted(planned.items()):
        line = f"{spec_id} {words[:LINE_LIMIT]}\n"
        if len(pieces[-1]) + len(line) > TAG_LIMIT:
            pieces.append("")
        pieces[-1] += line
    return pieces


def read_plan(store: Store, experiment: str) -> dict[str, str]:
    """Spec id → the run in words, of all that the experiment's sweeps last set out to do."""
    listed: dict[str, str] = {}
    with refusing(store):
        known = mlflow_client(store.uri).get_experiment_by_name(experiment)
        if known is None:
            return {}
        sweeps = search_runs(store, known.experiment_id, "tags.`backstop.kind` = 'sweep'")
        for sweep in sweeps:
            listed |= plan_in(sweep.data.tags)
    return listed


def plan_in(tags: Mapping[str, str]) -> dict[str, str]:
    """The plan that a sweep's run holds in its tags; empty without one."""
    listed: dict[str, str] = {}
    for index in range(int(tags.get(PLAN, "0"))):
        for line in tags.get(f"{PLAN}.{index}", "").splitlines():
            spec_id, _, words = line.partition(" ")
            listed[spec_id] = words
    return listed


def close_parent(
    store: Store,
    run_id: str,
    status: str,
) -> None:
    """Set a run's status (FINISHED, FAILED, KILLED). Raises BadInput when the store cannot be
    reached.
    """
    with refusing(store):
        check_still_there(store)
        mlflow_client(store.uri).set_terminated(run_id, status)


def drivers_home(store: Store, folder: Location) -> Path:
    """Where drivers are known: beside the database that they write to, else in the ``--store``
    folder.
    """
    file = database_file(store)
    return file.parent if file is not None else storage.local_folder(folder).expanduser().resolve()


def stop_runs(
    store: Store,
    experiment_id: str,
    driver: str,
) -> None:
    """Mark what a driver leaves unfinished as KILLED. Raises BadInput when the store cannot be
    reached.
    """
    with refusing(store):
        check_still_there(store)
        _kill(store, _runs_of(store, experiment_id, driver, "RUNNING"))


def failed_ids(
    store: Store,
    experiment_id: str,
    driver: str,
) -> set[str]:
    """Ids of the specs whose runs a driver's trials have marked as FAILED. Raises BadInput."""
    with refusing(store):
        runs = _runs_of(store, experiment_id, driver, "FAILED")
        return {run.data.tags.get("backstop.id", "") for run in runs}


def _runs_of(
    store: Store,
    experiment_id: str,
    driver: str,
    status: str,
) -> list[StoredRun]:
    """The runs of a driver that have this status."""
    condition = f"attributes.status = '{status}' AND tags.`{DRIVER}` = '{driver}'"
    return list(search_runs(store, experiment_id, condition))


def mark_interrupted(
    store: Store,
    folder: Location,
    experiment: str | None = None,
) -> Interrupted:
    """What, in one MLflow experiment or in all, has lost its driver to a kill since somebody looked
    last. It is marked as KILLED where the store can be written; the same command takes it up again.
    """
    home = drivers_home(store, folder)
    with refusing(store):
        running = _running(store, experiment)
        names = {_driver(run) for run in running} - {""}
        dead = {name for name in names if _died(store, home, name)}
    lost = [run for run in running if _driver(run) in dead]
    if not read_only(store):
        # a full disk: whoever looks after that marks them
        with suppress(BadInput), refusing(store):
            _kill(store, lost)
            for name in dead:
                drivers.forget(home, name)
    kinds = [run.data.tags.get("backstop.kind") for run in lost]
    sweeps = kinds.count("sweep")
    return Interrupted(sweeps, len(lost) - sweeps)


def _running(store: Store, experiment: str | None) -> list[StoredRun]:
    """The RUNNING runs of one MLflow experiment, or of all."""
    running: list[StoredRun] = []
    for item in mlflow_client(store.uri).search_experiments():
        if experiment in (None, item.name):
            condition = "attributes.status = 'RUNNING'"
            running += search_runs(store, item.experiment_id, condition)
    return running


def _driver(run: StoredRun) -> str:
    """Who works on a run; empty where it does not say."""
    return str(run.data.tags.get(DRIVER, ""))


def _kill(store: Store, runs: Iterable[StoredRun]) -> None:
    """Mark runs as KILLED, or delete them where their driver has finished the spec in another one.

    A server that dies may have made a run and not said so; asked again, it makes a second one.
    """
    client = mlflow_client(store.uri)
    for run in runs:
        client.set_terminated(run.info.run_id, "KILLED")
        if _is_double(store, run):
            client.delete_run(run.info.run_id)


def _is_double(store: Store, run: StoredRun) -> bool:
    """Whether the driver of a run has finished its spec in another run."""
    tags = run.data.tags
    if "backstop.id" not in tags:
        return False
    finished = "attributes.status = 'FINISHED' AND tags.`backstop.kind` = 'trial'"
    same = f"tags.`backstop.id` = '{tags['backstop.id']}' AND tags.`{DRIVER}` = '{_driver(run)}'"
    finished_twins = search_runs(store, run.info.experiment_id, f"{finished} AND {same}")
    return next(finished_twins, None) is not None


def _died(
    store: Store,
    home: Path,
    name: str,
) -> bool:
    """A driver that a database's own folder does not know has ended; one on a server may work
    beside another folder.
    """
    gone = drivers.gone(home, name)
    return database_file(store) is not None if gone is None else gone
