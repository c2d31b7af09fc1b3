"""Files in a folder or in an object store, by the few operations that checkpoints need.

``s3://bucket/path`` and ``gs://bucket/path`` go through Arrow's file systems, which come with Ray
Tune. What is written appears whole or not at all: in a folder by renaming, in an object store
because an object is there once all of it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urlsplit

from backstop.platform.disk import remove_unfinished, write_atomically
from backstop.platform.params import BadInput

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

SCHEMES = ("s3", "gs")
HOME = Path("backstop-store")  # what belongs to one machine, where the store is an object store
PATIENCE_S = 60.0  # that an object store is waited for that is away: a restart
PAUSE_S = 1.0  # between two tries
PROBE = ".backstop"  # the object that shows that a store can be written
Answered = TypeVar("Answered")


@dataclass(frozen=True)
class Remote:
    """An object, or all that begin with its key and a slash."""

    bucket: str  # with its scheme: s3://name
    key: str
    options: str = ""  # as Arrow reads them: region=…&scheme=http&endpoint_override=host:port

    def __truediv__(self, name: str) -> Remote:
        return replace(self, key=f"{self.key}/{name}".lstrip("/"))

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}{'?' * bool(self.options)}{self.options}"

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> Remote:
        """What the key's last part is in."""
        return replace(self, key=self.key.rpartition("/")[0])

    @property
    def path(self) -> str:
        """Bucket and key, as Arrow names them."""
        return f"{self.bucket.partition('://')[2]}/{self.key}"


Location = Path | Remote


def locate(given: str | Path) -> Location:
    """The folder or the part of an object store that a text names.

    Raises BadInput for an address of another kind, or one that holds a secret.
    """
    if isinstance(given, Path) or "://" not in given:
        return Path(given)
    parts = urlsplit(given)
    allowed = "a folder, s3://bucket/path or gs://bucket/path"
    if "@" in parts.netloc:
        raise BadInput(
            f"--store {parts.scheme}://…@{parts.hostname}{parts.path} holds a password; keys come "
            f"from the environment, such as AWS_ACCESS_KEY_ID; a store is {allowed}"
        )
    if parts.scheme not in SCHEMES or not parts.netloc or parts.fragment:
        raise BadInput(f"--store {given!r} is not allowed; a store is {allowed}")
    bucket = f"{parts.scheme}://{parts.netloc}"
    return Remote(bucket, parts.path.strip("/"), parts.query)


def absolute(location: Location) -> Location:
    """The same, whatever folder a process is in."""
    return location.resolve() if isinstance(location, Path) else location


def local_folder(location: Location) -> Path:
    """Where a store keeps what belongs to one machine: itself, if it is a folder."""
    return location if isinstance(location, Path) else HOME


def open_read(location: Location) -> BinaryIO:
    """The content. Raises FileNotFoundError where there is none, OSError where it cannot be read;
    an object store that is away is waited for.
    """
    if isinstance(location, Path):
        return location.open("rb")
    return BytesIO(_patiently(lambda: _content(location)))


def write_whole(
    location: Location,
    content: bytes | memoryview,
    *,
    patient: bool = False,
) -> None:
    """Write the content whole or not at all. Raises OSError; with ``patient`` an object store that
    is away is waited for.
    """
    if isinstance(location, Path):
        write_atomically(location, content)
    elif patient:
        _patiently(lambda: _put(location, content))
    else:
        _put(location, content)


def _put(location: Remote, content: bytes | memoryview) -> None:
    with _file_system(location).open_output_stream(location.path) as stream:
        stream.write(content)


def exists(location: Location) -> bool:
    """Whether there is a file or an object. Raises OSError where an object store does not say."""
    if isinstance(location, Path):
        return location.is_file()
    return _patiently(lambda: _is_file(_file_system(location).get_file_info(location.path)))


def file_names(location: Location) -> set[str]:
    """What is in a folder, or one level below a key. Raises OSError."""
    if not isinstance(location, Path):
        return _patiently(lambda: _listed(location))
    if not location.is_dir():
        return set()
    return {path.name for path in location.iterdir()}


def delete(location: Location) -> None:
    """Remove a file, with what killed processes had begun to write in its place, or an object;
    nothing where there is none. Raises OSError.
    """
    if isinstance(location, Path):
        location.unlink(missing_ok=True)
        remove_unfinished(location)
    elif exists(location):
        _file_system(location).delete_file(location.path)


def check_object_store(location: Location) -> None:
    """Raise BadInput where an object store cannot be written; a folder is looked at elsewhere."""
    if isinstance(location, Path):
        return
    try:
        write_whole(location / PROBE, b"")
    except (OSError, ValueError) as error:  # Arrow's own are one or the other
        raise BadInput(f"--store {location} cannot be written: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """The first line of an error."""
    return str(error).strip().partition("\n")[0]


def _content(location: Remote) -> bytes:
    with _file_system(location).open_input_file(location.path) as stream:
        content: bytes = stream.read()
    return content


def _listed(location: Remote) -> set[str]:
    from pyarrow.fs import FileSelector

    below = FileSelector(location.path, allow_not_found=True)
    return {info.base_name for info in _file_system(location).get_file_info(below)}


def _is_file(info: FileInfo) -> bool:
    from pyarrow.fs import FileType

    return bool(info.type == FileType.File)


def _file_system(location: Remote) -> FileSystem:
    return _connected(location.bucket, location.options)


@lru_cache(maxsize=8)
def _connected(bucket: str, options: str) -> FileSystem:
    from pyarrow.fs import FileSystem

    system, _ = FileSystem.from_uri(f"{bucket}?{options}" if options else bucket)
    return system


def _patiently(action: Callable[[], Answered]) -> Answered:
    """Do it, again and again for a while where the object store does not answer."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return action()
        except FileNotFoundError:
            raise
        except OSError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(PAUSE_S)
