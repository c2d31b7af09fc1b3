"""Runs read from the tables of MLflow's database, some hundred runs with each query.

MLflow's API makes an object of every parameter, tag and metric of a run, and takes a query for the
rounds of each: milliseconds a run. Its tables hold the same. A tracking server shows none: what it
has to say comes through the API.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from backstop.platform.results.tracking.store import Store

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

RUNS_AT_ONCE = 500  # of one query; databases allow some thousand values in one
TAG_START = "backstop."
PARENT = "mlflow.parentRunId"
FINAL_STARTS = ("final/", "time/total_", "memory/peak_")  # metrics of a whole run

Curves = dict[str, dict[str, list[tuple[int, float]]]]  # MLflow run id → metric → (round, value)


class Stored(NamedTuple):
    """What MLflow holds of a run, as far as it is read back."""

    run_id: str
    status: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


def is_database(store: Store) -> bool:
    """Whether the store is a database, and no tracking server."""
    return not store.uri.startswith(("http://", "https://"))


def trial_statuses(
    store: Store,
    experiment_id: str,
    status: str | None,
) -> dict[str, str]:
    """MLflow run id → status of an experiment's trials, the oldest first; of all where ``status``
    is None.
    """
    from sqlalchemy import select

    runs, tags = _columns("runs"), _columns("tags")
    chosen = (
        select(runs.run_uuid, runs.status)
        .where(tags.run_uuid == runs.run_uuid)
        .where(tags.key == "backstop.kind", tags.value == "trial")
        .where(runs.experiment_id == int(experiment_id), runs.lifecycle_stage == "active")
        .order_by(runs.start_time, runs.run_uuid)
    )
    if status is not None:
        chosen = chosen.where(runs.status == status)
    with _connected(store) as connection:
        return dict(_rows(connection, chosen))


class StoredTrial(NamedTuple):
    """How far MLflow holds a trial to be."""

    run_id: str
    status: str
    started: int  # milliseconds since 1970
    ended: int | None
    artifact_uri: str
    tags: Mapping[str, str]


def stored_trials(store: Store, experiment_id: str) -> list[StoredTrial]:
    """The trials of an experiment, the oldest first."""
    from sqlalchemy import select

    runs, tags = _columns("runs"), _columns("tags")
    statuses = trial_statuses(store, experiment_id, None)
    told = select(
        runs.run_uuid,
        runs.status,
        runs.start_time,
        runs.end_time,
        runs.artifact_uri,
    )
    of_ours = tags.key.startswith(TAG_START, autoescape=True) | (tags.key == PARENT)
    labels = select(tags.run_uuid, tags.key, tags.value).where(of_ours)
    trials = []
    with _connected(store) as connection:
        for portion in _portions(list(statuses)):
            tagged = _by_run(connection, labels.where(tags.run_uuid.in_(portion)))
            rows = _rows(connection, told.where(runs.run_uuid.in_(portion)))
            for run_id, status, started, ended, artifacts in rows:
                labeled = tagged.get(run_id, {})
                trials.append(StoredTrial(run_id, status, started, ended, artifacts, labeled))
    return sorted(trials, key=lambda trial: (trial.started, trial.run_id))


def stored_runs(store: Store, statuses: Mapping[str, str]) -> Iterator[Stored]:
    """What the database holds of these runs, in their order."""
    from sqlalchemy import or_, select

    tags, metrics = _columns("tags"), _columns("latest_metrics")
    of_all = or_(*(metrics.key.startswith(start, autoescape=True) for start in FINAL_STARTS))
    of_ours = tags.key.startswith(TAG_START, autoescape=True)
    labels = select(tags.run_uuid, tags.key, tags.value).where(of_ours)
    figures = select(metrics.run_uuid, metrics.key, metrics.value).where(of_all)
    numbers = figures.where(metrics.is_nan.is_(False))
    with _connected(store) as connection:
        for portion in _portions(list(statuses)):
            tagged = _by_run(connection, labels.where(tags.run_uuid.in_(portion)))
            measured = _by_run(connection, numbers.where(metrics.run_uuid.in_(portion)))
            for run_id in portion:
                held = tagged.get(run_id, {}), measured.get(run_id, {})
                yield Stored(run_id, statuses[run_id], *held)


def read_curves(
    store: Store,
    run_ids: Sequence[str],
    metrics: Sequence[str],
) -> Curves:
    """The metrics by round of these runs, in order of rounds; of two values of one round the first
    stored one.
    """
    from sqlalchemy import select

    points = _columns("metrics")
    named = (
        select(points.run_uuid, points.key, points.step, points.value)
        .where(points.key.in_(metrics))
        .order_by(points.timestamp, points.step, points.value)
    )
    curves: Curves = {run_id: {name: [] for name in metrics} for run_id in run_ids}
    with _connected(store) as connection:
        for portion in _portions(run_ids):
            chosen = named.where(points.run_uuid.in_(portion))
            _fill(curves, _rows(connection, chosen))
    return curves


def _fill(curves: Curves, points: Iterable[Any]) -> None:
    """Put points, the first stored one first, where they belong, in order of rounds."""
    first: dict[tuple[str, str, int], float] = {}
    for run_id, name, step, value in points:
        first.setdefault((run_id, name, step), value)
    for (run_id, name, step), value in sorted(first.items()):
        curves[run_id][name].append((step, value))


def _columns(table: str) -> Any:
    """The columns of one of MLflow's tables."""
    from mlflow.store.tracking.dbmodels.models import SqlRun

    return SqlRun.metadata.tables[table].c


@contextmanager
def _connected(store: Store) -> Iterator[Connection]:
    """A connection of its own, so that none is left open on a file that goes away."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(store.uri, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        yield connection


def _portions(run_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(run_ids), RUNS_AT_ONCE):
        yield run_ids[first : first + RUNS_AT_ONCE]


def _by_run(connection: Connection, chosen: Select[Any]) -> dict[str, dict[str, Any]]:
    """MLflow run id → key → value; runs share the texts of their keys."""
    by_run: dict[str, dict[str, Any]] = {}
    for run_id, key, value in _rows(connection, chosen):
        by_run.setdefault(run_id, {})[sys.intern(key)] = value
    return by_run


def _rows(connection: Connection, chosen: Select[Any]) -> Iterator[Any]:
    for row in connection.execute(chosen):
        yield tuple(row)
