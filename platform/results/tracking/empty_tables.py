"""MLflow's empty tables, kept in the cache for the installed version: to make them takes hundreds
of migrations, to copy them a few milliseconds.

What is kept is a cache: where it is lost, damaged or cannot be written, the tables are made again.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from backstop.platform.disk import cache_name, replacing


def cached_tables() -> Path:
    """Where the tables of the installed MLflow are kept: by its version and its migrations, which
    change under one version while MLflow is worked on. Raises RuntimeError without a home folder.
    """
    import mlflow

    migrations = Path(mlflow.__file__).parent.glob("store/db_migrations/versions/*.py")
    names = " ".join(sorted(path.stem for path in migrations))
    digest = hashlib.sha256(names.encode()).hexdigest()[:12]
    name = f"mlflow-{mlflow.__version__}-{digest}.db"
    return Path(cache_name()).expanduser() / "tables" / name


def copy_to(file: Path) -> bool:
    """Put the kept tables, if there are sound ones, into a new database file; whether they are."""
    try:
        shutil.copyfile(cached_tables(), file)
        with closing(sqlite3.connect(file)) as connection:
            sound = connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
            empty = sound and not any(connection.execute("SELECT 1 FROM experiments LIMIT 1"))
    except (OSError, RuntimeError, sqlite3.Error):
        empty = False
    if not empty:
        file.unlink(missing_ok=True)
    return empty


def keep(file: Path) -> None:
    """Keep the tables of a database without runs, whole or not at all.

    MLflow makes the default experiment anew in each copy, with that store's own folder in it.
    """
    with suppress(OSError, RuntimeError, sqlite3.Error), replacing(cached_tables()) as fresh:
        shutil.copyfile(file, fresh)
        with closing(sqlite3.connect(fresh)) as connection, connection:
            connection.execute("DELETE FROM experiments")
