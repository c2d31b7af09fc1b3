"""A sweep's database is written ahead while it lasts, and is whole by itself again at its end."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from backstop.platform.params import BadInput
from backstop.platform.results.tracking import journal
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.soundness import check_reachable
from backstop.platform.results.tracking.store import (
    Store,
    database_file,
    locate_store,
    mlflow_client,
)

DISKS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/me/my\\040disk xfs rw 0 0
share /mnt/share fuse.sshfs rw 0 0
server:/büro /mnt/büro nfs4 rw 0 0
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    here = locate_store(tmp_path / "store")
    open_experiment(here, "x")
    return here


def file_of(store: Store) -> Path:
    file = database_file(store)
    assert file is not None
    return file


def add_run(store: Store) -> str:
    client = mlflow_client(store.uri)
    return str(client.create_run(open_experiment(store, "x")).info.run_id)


@pytest.mark.parametrize(
    ("file", "alone"),
    [
        ("/tmp/store/mlflow.db", True),
        ("/home/me/store/mlflow.db", False),
        ("/home/me/my disk/store/mlflow.db", True),
        ("/mnt/share/mlflow.db", False),
        ("/mnt/büro/mlflow.db", False),
    ],
)
def test_only_disks_of_this_machine_alone_are_written_ahead(
    file: str, alone: bool, tmp_path: Path
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(DISKS, encoding="utf-8")
    assert journal.of_one_machine(Path(file), mounts) is alone


def test_a_system_that_does_not_tell_its_disks_is_not_trusted(tmp_path: Path) -> None:
    assert not journal.of_one_machine(tmp_path / "mlflow.db", tmp_path / "none")


def test_a_shared_disk_stays_as_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "of_one_machine", lambda file: False)
    journal.write_ahead(store)
    assert not journal.written_ahead(file_of(store))


def test_the_file_is_whole_by_itself_at_the_end(store: Store, tmp_path: Path) -> None:
    with journal.settling(store):
        journal.write_ahead(store)
        run = add_run(store)
        assert journal.written_ahead(file_of(store))
        check_reachable(store, write=True)  # pages that are in the log alone are no damage
    assert not file_of(store).with_name("mlflow.db-wal").exists()
    copy = locate_store(tmp_path / "copy")
    file_of(copy).parent.mkdir()
    shutil.copy(file_of(store), file_of(copy))
    assert mlflow_client(copy.uri).get_run(run).info.run_id == run


def test_while_somebody_else_works_on_it_the_log_stays(store: Store) -> None:
    file = file_of(store)
    with closing(sqlite3.connect(file)) as other:
        with journal.settling(store):
            journal.write_ahead(store)
            run = add_run(store)
            other.execute("SELECT count(*) FROM runs").fetchone()
        assert journal.written_ahead(file)
        assert mlflow_client(store.uri).get_run(run).info.run_id == run
    with journal.settling(store):
        pass
    assert not journal.written_ahead(file)


def test_a_process_that_is_just_ending_is_waited_for(store: Store) -> None:
    file = file_of(store)
    hold = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM runs')"
    ending = [
        sys.executable,
        "-c",
        f"{hold}; print('open', flush=True); import time; time.sleep(1)",
    ]
    journal.write_ahead(store)
    with subprocess.Popen([*ending, str(file)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with journal.settling(store):
            pass
        assert not journal.written_ahead(file)


def test_a_file_that_was_left_in_a_sweep_says_so_where_nothing_can_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.write_ahead(store)

    def refuse(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    with pytest.raises(BadInput, match=r"did not end in order.* copy it, with mlflow.db-wal"):
        check_reachable(store, write=False)
