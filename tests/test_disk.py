"""Files that appear whole or not at all, and locks."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstop.platform import storage
from backstop.platform.disk import file_lock, is_locked, replacing, write_atomically


def test_a_file_is_written_whole_and_its_folder_made(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "figures.json"
    for content in (b"first", b"second"):
        write_atomically(file, content)
        assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


def test_what_fails_on_the_way_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), replacing(file) as fresh:
        fresh.write_bytes(b"half of the")
        assert file.read_bytes() == b"old"
        raise OSError("the disk is full")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_had_begun_to_write_goes_with_the_file(tmp_path: Path) -> None:
    file, other = tmp_path / "a[1].pt", tmp_path / ".a1.pt.77"
    for path in (file, other, tmp_path / ".a[1].pt.77", tmp_path / ".a[1].pt.8"):
        path.write_bytes(b"half of the")
    storage.delete(file)
    assert list(tmp_path.iterdir()) == [other]
    storage.delete(file)  # there is none


def test_a_lock_is_held_for_as_long_as_the_block_lasts(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "lock"
    with file_lock(lock):
        assert is_locked(lock)
    assert not is_locked(lock)
    with pytest.raises(FileNotFoundError):
        is_locked(tmp_path / "none")
