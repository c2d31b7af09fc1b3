"""MLflow experiments: opened by name, made where they are missing, the database with them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backstop.platform import collector
from backstop.platform.disk import file_lock, replacing
from backstop.platform.params import BadInput
from backstop.platform.results.tracking import empty_tables
from backstop.platform.results.tracking.soundness import check_database_writable
from backstop.platform.results.tracking.store import (
    Store,
    client_class,
    database_file,
    database_uri,
    empty,
    mlflow_client,
    refusing,
)


def check_name(name: str) -> None:
    """BadInput for an experiment name that MLflow, a folder or a URL could not carry."""
    if not re.fullmatch(r"\w[\w .-]{0,99}", name) or name.endswith("."):
        raise BadInput(
            f"experiment name {name!r} is not allowed; up to 100 letters, digits, spaces and "
            ". _ -, the first one a letter, digit or _, the last no dot"
        )


def open_experiment(store: Store, name: str) -> str:
    """The experiment's MLflow id; the database and the experiment are made where they are missing.

    Any number of processes may call this at once. Raises BadInput when the store cannot be used.
    """
    check_name(name)
    file = database_file(store)
    if file is not None and empty(file):
        check_database_writable(file)
        _create(file, store.artifacts)
    with refusing(store):
        client = mlflow_client(store.uri)
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            from mlflow.exceptions import MlflowException

            location = None
            if store.artifacts:
                location = Path(store.artifacts, quote(name)).as_uri()
            try:
                return str(client.create_experiment(name, artifact_location=location))
            except MlflowException:  # made by another process just now
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    raise
    if experiment.lifecycle_stage != "active":
        command = restore_command(store, experiment.experiment_id)
        raise BadInput(
            f"experiment {name!r} was deleted in MLflow; choose another name or run: {command}"
        )
    return str(experiment.experiment_id)


def restore_command(store: Store, experiment_id: object) -> str:
    """The command line that brings a deleted experiment back."""
    words = ["mlflow", "experiments", "restore", "--experiment-id", str(experiment_id)]
    return f"MLFLOW_TRACKING_URI={shlex.quote(store.uri)} {shlex.join(words)}"


def import_store(store: Store) -> None:
    """Import what a store needs before it is needed."""
    client_class()
    if database_file(store) is not None:
        _database_class()


def _database_class() -> Any:
    """MLflow's store in a database."""
    with collector.resting():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore


def _create(file: Path, artifacts: str) -> None:
    """Make MLflow's tables in a new file that appears at once and whole.

    Several processes that open a new database together would destroy it. MLflow's migrations make
    some 900 transactions: without waiting for the disk at each of them they take 2 s instead of 10,
    and a copy of an earlier database's tables needs none. The file gets its name when it is on the
    disk.
    """
    with file_lock(file.with_name(f"{file.name}.lock")):
        if not empty(file):
            return
        with replacing(file) as fresh, _without_syncs(fresh):
            with refusing(Store(database_uri(file), artifacts)):
                _fill(fresh, artifacts)
            with fresh.open("rb") as whole:
                os.fsync(whole.fileno())


def _fill(fresh: Path, artifacts: str) -> None:
    """Put MLflow's tables and its default experiment into a database file."""
    copied = empty_tables.copy_to(fresh)
    _database_class()(database_uri(fresh), artifacts).engine.dispose()
    if not copied:
        empty_tables.keep(fresh)


@contextmanager
def _without_syncs(file: Path) -> Iterator[None]:
    """Let connections to a database file leave it to the system when to write to the disk."""
    import sqlalchemy

    def leave_to_system(connection: Any, *_: object) -> None:
        if connection.execute("PRAGMA database_list").fetchone()[2] == str(file.resolve()):
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA journal_mode=MEMORY")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", leave_to_system)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", leave_to_system)
