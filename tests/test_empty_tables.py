"""MLflow's tables in a new store: copied from the cache, and equal to those that it migrates."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backstop.platform.results.tracking import empty_tables
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.store import (
    Store,
    database_file,
    locate_store,
    mlflow_client,
)


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    """A store made with an empty cache, and the tables that were kept then."""
    folder = tmp_path_factory.mktemp("migrated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKSTOP_CACHE", str(folder / "cache"))
        store = locate_store(folder)
        assert open_experiment(store, "runs") == "1"
        return store, empty_tables.cached_tables()


@pytest.fixture
def kept(migrated: tuple[Store, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kept tables in a cache of the test's own."""
    monkeypatch.setenv("BACKSTOP_CACHE", str(tmp_path / "cache"))
    path = empty_tables.cached_tables()
    path.parent.mkdir(parents=True)
    shutil.copyfile(migrated[1], path)
    return path


def no_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the tables are migrated")

    monkeypatch.setattr("mlflow.store.db.utils._upgrade_db", refuse)


def holds(store: Store) -> tuple[list[tuple[str, list[str]]], dict[str, list[str]]]:
    """A database: its tables, indexes and triggers, and its rows but for folder and clock.

    MLflow's migrations put the constraints of a table in no fixed order.
    """
    file = database_file(store)
    assert file is not None
    with closing(sqlite3.connect(file)) as connection:
        objects = connection.execute("SELECT name, type, sql FROM sqlite_master").fetchall()
        schema = sorted(
            (name, sorted(line.strip(" ,\t") for line in (sql or "").splitlines()))
            for name, _, sql in objects
        )
        rows = {
            name: sorted(map(str, connection.execute(f'SELECT * FROM "{name}"')))
            for name, kind, _ in objects
            if kind == "table" and name != "experiments"
        }
        rows["experiments"] = [
            str(row).replace(str(file.parent), "HERE")
            for row in connection.execute(
                "SELECT experiment_id, name, artifact_location, lifecycle_stage, workspace,"
                " creation_time = last_update_time FROM experiments ORDER BY 1"
            )
        ]
    return schema, rows


def test_copied_tables_equal_migrated_ones(
    migrated: tuple[Store, Path], kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept.read_bytes()
    no_migration(monkeypatch)
    store = locate_store(tmp_path / "store")
    assert open_experiment(store, "runs") == "1"
    assert holds(store) == holds(migrated[0])
    assert kept.read_bytes() == before
    default = mlflow_client(store.uri).get_experiment("0")
    assert default.artifact_location == f"{tmp_path}/store/mlartifacts/0"


@pytest.mark.parametrize("damage", ["cut off", "empty", "foreign", "used"])
def test_tables_that_are_not_sound_are_made_again(
    damage: str, migrated: tuple[Store, Path], kept: Path, tmp_path: Path
) -> None:
    used = database_file(migrated[0])
    assert used is not None
    whole = kept.read_bytes()
    content = {
        "cut off": whole[: len(whole) // 2],
        "empty": b"",
        "foreign": b"no database",
        "used": used.read_bytes(),
    }[damage]
    kept.write_bytes(content)
    store = locate_store(tmp_path / "store")
    assert open_experiment(store, "runs") == "1"
    assert holds(store) == holds(migrated[0])
    assert empty_tables.copy_to(tmp_path / "copy.db")
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_tables_are_kept_whole_or_not_at_all(
    migrated: tuple[Store, Path], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.unlink()
    file = database_file(migrated[0])
    assert file is not None

    def full(_: Path, place: Path) -> None:
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        empty_tables.keep(file)
    assert list(kept.parent.iterdir()) == []
    empty_tables.keep(file)
    assert list(kept.parent.iterdir()) == [kept]


def test_a_store_is_made_where_nothing_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    occupied = tmp_path / "file"
    occupied.touch()
    monkeypatch.setenv("BACKSTOP_CACHE", str(occupied))
    assert open_experiment(locate_store(tmp_path / "store"), "runs") == "1"
    assert capfd.readouterr() == ("", "")


def test_other_migrations_have_other_tables(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = tmp_path / "store/db_migrations/versions"
    versions.mkdir(parents=True)
    (versions / "one.py").touch()
    monkeypatch.setattr("mlflow.__file__", str(tmp_path / "__init__.py"))
    assert empty_tables.cached_tables() != kept
    assert empty_tables.cached_tables().name.startswith("mlflow-3.")
