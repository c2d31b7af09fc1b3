"""Loose plug-in files: a plug-in that lies anywhere, named by what its file is called and holds.

``my_defense@3f2a9c1be04d`` is the file ``my_defense.py`` whose sha256 begins with these digits;
``nets:Small@77ab01f2c3d4`` is what ``nets.py`` calls ``Small``. A process knows the files that it
has read or has been sent: :data:`FILES`.
"""

from __future__ import annotations

import hashlib
import linecache
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from backstop.platform.params import BadInput

# of the sha256 that a name holds, as `sha256sum my_defense.py | cut -c1-12` prints
NAME_DIGITS = 12
FULL_NAME = re.compile(rf"([^\W\d]\w*)(?::([^\W\d]\w*))?@([0-9a-f]{{{NAME_DIGITS}}})")
PATH_FORM = re.compile(r"(.+\.py)(?::([^\W\d]\w*))?")
MOST_BYTES = 2**20  # bytes of a file: it is kept with every run


class LooseFile(NamedTuple):
    """A file as it was read; it may have changed or gone since."""

    stem: str
    text: str
    place: str = ""  # where it was read, for messages; empty in a process that was sent the text

    @property
    def digest(self) -> str:
        """The first digits of the sha256 of its bytes."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:NAME_DIGITS]

    @property
    def key(self) -> str:
        """What :data:`FILES` knows it by: ``my_defense@3f2a9c1be04d``."""
        return f"{self.stem}@{self.digest}"


FILES: dict[str, LooseFile] = {}
# stem → key, of files that --plugin has named: these go by their stem alone
GIVEN: dict[str, str] = {}


def is_full_name(name: str) -> bool:
    """Whether a name is that of something in a loose file."""
    return "@" in name and FULL_NAME.fullmatch(name) is not None


def is_path(name: str) -> bool:
    """Whether a name is a path of a Python file: ``./mine.py``, ``mine.py:Net``."""
    return ".py" in name and PATH_FORM.fullmatch(name) is not None


def short_name(name: str) -> str:
    """A name without the digits: what a key, a title or a function goes by.

    >>> short_name("my_defense@3f2a9c1be04d"), short_name("../nets.py:Small"), short_name("krum")
    ('my_defense', 'nets:Small', 'krum')
    """
    if is_full_name(name):
        return name.partition("@")[0]
    if not is_path(name):
        return name
    path, attribute = split_path(name)
    return _joined(Path(path).stem, attribute)


def split_path(name: str) -> tuple[str, str]:
    """The path in a reference, and what is meant in the file: empty for its namesake."""
    match = PATH_FORM.fullmatch(name)
    assert match is not None, name
    return match[1], match[2] or ""


def path_of(name: str) -> str:
    """The path of what is named, where that is in a loose file: given by its path, or by its name
    after --plugin. Empty for any other name.
    """
    if is_path(name):
        return name
    stem, _, attribute = short_name(name).partition(":")
    key = GIVEN.get(stem)
    if key is None:
        return ""
    return f"{FILES[key].place}:{attribute}" if attribute else FILES[key].place


def name_of(file: LooseFile, attribute: str = "") -> str:
    """The name in a spec of what a file holds."""
    return f"{_joined(file.stem, attribute)}@{file.digest}"


def _joined(stem: str, attribute: str) -> str:
    return f"{stem}:{attribute}" if attribute and attribute != stem else stem


def given_name(name: str) -> str:
    """The full name of ``my_defense`` or ``nets:Small`` where --plugin has named the file; else the
    name as it is.
    """
    if is_full_name(name):
        return name
    stem, _, attribute = name.partition(":")
    key = GIVEN.get(stem)
    return name_of(FILES[key], attribute) if key else name


def read_file(path: str) -> LooseFile:
    """A file that is there. Raises BadInput where it cannot be a plug-in."""
    place = Path(path).expanduser()
    stem = place.stem
    if not place.is_file():
        missing = "is a folder" if place.is_dir() else "does not exist"
        raise BadInput(
            f"plug-in {path}: the file {missing} (looked for in {place.parent.resolve()})"
        )
    if not stem.isidentifier() or place.suffix != ".py":
        raise BadInput(
            f"plug-in {path}: the file has to be called as a function can be, letters, digits and _"
            " before .py"
        )
    try:
        content = place.read_bytes()
        text = content.decode()
    except OSError as error:
        raise BadInput(f"plug-in {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"plug-in {path} is no UTF-8 text") from None
    if len(content) > MOST_BYTES:
        raise BadInput(f"plug-in {path} has {len(content)} bytes; at most {MOST_BYTES}")
    return LooseFile(stem, text, str(place))


def know(file: LooseFile) -> LooseFile:
    """Take note of a file; of two with the same content the first stays."""
    return FILES.setdefault(file.key, file)


def give(file: LooseFile) -> None:
    """Let a file go by its stem. Raises BadInput where another one does."""
    key = know(file).key
    other = GIVEN.setdefault(file.stem, key)
    if other != key:
        raise BadInput(
            f"--plugin {file.place}: {FILES[other].place} is called {file.stem!r} too and holds"
            " something else; one name is one plug-in"
        )


def sent() -> tuple[LooseFile, ...]:
    """All files that this process knows, for another process to :func:`receive`."""
    return tuple(file._replace(place="") for file in FILES.values())


def receive(files: Iterable[LooseFile]) -> None:
    """Know the files that another process knows."""
    for file in files:
        know(file)


def file_of(name: str, what: str) -> LooseFile:
    """The file that a full name is of. Raises BadInput, which begins with ``what``, where this
    process does not know it.
    """
    match = FULL_NAME.fullmatch(name)
    assert match is not None, name
    stem, _, digest = match.groups()
    known = FILES.get(f"{stem}@{digest}")
    if known is not None:
        return known
    others = [file for file in FILES.values() if file.stem == stem]
    if others:
        raise BadInput(
            f"{what} {name} is another file than {others[0].place or f'{stem}.py'}, whose sha256"
            f" begins with {others[0].digest}"
        )
    raise BadInput(
        f"{what} {name} is a loose file that is not here; say --plugin {stem}.py, with the path of"
        f" the file whose sha256 begins with {digest}"
    )


def is_here(name: str) -> bool:
    """Whether the file of a full name is known to this process."""
    stem, _, digest = name.partition("@")
    return f"{stem.partition(':')[0]}@{digest}" in FILES


def texts_of(names: Iterable[str]) -> dict[str, str]:
    """Artifact name → text of the files behind some names of a spec."""
    files = {}
    for name in names:
        if is_full_name(name):
            file = file_of(name, "plug-in")
            files[f"plugins/{file.digest}/{file.stem}.py"] = file.text
    return files


def import_file(file: LooseFile, where: str) -> ModuleType:
    """The module of a file, run once in a process. BadInput, which begins with ``where``, where it
    raises.
    """
    name = f"backstop_loose_{file.stem}_{file.digest}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = file.place or f"{file.stem}.py"
    sys.modules[name] = module  # dataclasses and pickle look it up there
    lines = file.text.splitlines(keepends=True)
    linecache.cache[module.__file__] = (len(file.text), None, lines, module.__file__)
    try:
        code = compile(file.text, module.__file__, "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102 -- a plug-in that its user has named
    except KeyboardInterrupt:
        del sys.modules[name]
        raise
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{where} raised {type(error).__name__}: {error}{_remedy(error)}") from error
    return module


def _remedy(error: BaseException) -> str:
    """What to do about an import that a loose file cannot have."""
    if isinstance(error, ImportError):
        return "; a loose file is all of a plug-in: what it imports has to be installed"
    return ""
