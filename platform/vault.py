"""Files that a spec names by what they hold: checkpoints, weights of other libraries.

``sha256-…`` is the file with these bytes; of a folder it is the list of its files that count, as
``sha256sum`` prints it, which is kept like a file. Copies lie under these names in a folder, or
with an object store as ``--store`` in it, where every node of a cluster finds them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from backstop.platform import storage
from backstop.platform.disk import cache_name
from backstop.platform.params import BadInput, Content
from backstop.platform.storage import Location, Remote

KEPT_NAME = re.compile("sha256-[0-9a-f]{64}")
REMEDY = (
    "checkpoints and warm-ups are kept there; set BACKSTOP_CACHE to a folder that can be written"
)
PROBE_BYTES = 2**12  # a file system that has no block left says so
SETTING = "BACKSTOP_STARTS"  # a folder or a part of an object store


class _Place:
    """Where this process keeps files unless told otherwise; None: in a cache."""

    of_store: Location | None = None


def keep_with(store: Location) -> None:
    """Keep files of this process in the store from now on, if that is an object store: nodes share
    no folder then.
    """
    _Place.of_store = store / "starts" if isinstance(store, Remote) else None


def cache() -> Location:
    """Where files are kept: ``$BACKSTOP_STARTS``, else in the object store of :func:`keep_with`,
    else :func:`local_cache`.
    """
    if given := os.environ.get(SETTING):
        return storage.locate(given)
    return _Place.of_store or local_cache()


def local_cache() -> Path:
    """``starts`` in ``$BACKSTOP_CACHE``, else in ``~/.cache/backstop``."""
    given = cache_name()
    try:
        return Path(given).expanduser() / "starts"
    except RuntimeError as error:  # no HOME, and a user whom the system does not know
        raise BadInput(f"{given}: {error}; {REMEDY}") from None


def check_usable() -> None:
    """Raise BadInput where files cannot be kept, before anything is trained."""
    folder = cache()
    if isinstance(folder, Remote):
        storage.check_object_store(folder)
        return
    with keeping():
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))


@contextmanager
def keeping() -> Iterator[None]:
    """What the system has against a file in the cache becomes BadInput that names the way out."""
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"{cache()} cannot be written: {error.strerror or error}; {REMEDY}"
        ) from None


def name_by_content(content: bytes) -> str:
    """The name of a file that holds this.

    >>> name_by_content(b"")[:19]
    'sha256-e3b0c44298fc'
    """
    return f"sha256-{hashlib.sha256(content).hexdigest()}"


def keep_bytes(content: bytes) -> str:
    """Keep a file and return its name."""
    name = name_by_content(content)
    with keeping():
        if not storage.exists(cache() / name):
            storage.write_whole(cache() / name, content, patient=True)
    return name


def keep_given(
    given: str,
    counting: Content,
    where: str,
) -> str:
    """The name of what lies at a path, a file or a folder as the parameter wants it, which is kept;
    a name is returned as it is. Raises BadInput that begins with ``where``.
    """
    if KEPT_NAME.fullmatch(given):
        return given
    path = Path(given).expanduser()
    wanted = "folder" if counting.files else "file"
    if not (path.is_dir() if counting.files else path.is_file()):
        raise BadInput(f"{where}={given!r}: there is no such {wanted} (looked for in {Path.cwd()})")
    files = _counting(path, counting)
    if counting.files and not files:
        listed = " or ".join(counting.files)
        raise BadInput(f"{where}={given!r}: the folder has no {listed}")
    try:
        known = tuple((str(file.resolve()), file.stat().st_mtime_ns) for file in files)
        return _kept(known, str(cache()), as_folder=bool(counting.files))
    except OSError as error:
        raise BadInput(f"{where}={given!r} cannot be read: {error.strerror or error}") from None


def _counting(path: Path, counting: Content) -> list[Path]:
    """The files that count, by their names."""
    if not counting.files:
        return [path]
    return sorted({file for pattern in counting.files for file in path.glob(pattern)})


@lru_cache(maxsize=32)
def _kept(
    files: tuple[tuple[str, int], ...],
    place: str,  # noqa: ARG001 -- what is kept in one place is not yet in another
    *,
    as_folder: bool,
) -> str:
    """The name of what is kept; files that did not change meanwhile are not read again."""
    names = {Path(file).name: keep_bytes(Path(file).read_bytes()) for file, _ in files}
    if not as_folder:
        return next(iter(names.values()))
    lines = [f"{kept.removeprefix('sha256-')}  {name}\n" for name, kept in names.items()]
    return keep_bytes("".join(lines).encode())


def read_kept(given: str, where: str) -> bytes:
    """What a kept file holds; given by its path it is kept first. Raises BadInput, which begins
    with ``where``, where it is not there or was changed.
    """
    name = keep_given(given, Content(), where)
    path = cache() / name
    if not storage.exists(path):
        raise BadInput(f"{where}={name} is not in {path.parent}; give its path once: {where}=PATH")
    with storage.open_read(path) as file:
        held = file.read()
    if name_by_content(held) != name:
        raise BadInput(f"{where}={name}: {path} was changed; remove it and give its path once more")
    return held


@contextmanager
def as_folder(
    given: str,
    counting: Content,
    where: str,
) -> Iterator[Path]:
    """A folder with the files of a kept one, for as long as the block lasts."""
    name = keep_given(given, counting, where)
    with TemporaryDirectory(prefix="backstop-") as made:
        for line in read_kept(name, where).decode().splitlines():
            digest, _, file = line.partition("  ")
            (Path(made) / file).write_bytes(read_kept(f"sha256-{digest}", where))
        yield Path(made)
