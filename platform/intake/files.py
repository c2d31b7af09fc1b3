"""Files from outside: checked, decoded without running code; csv records with their lines."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import lzma
import math
import pickle
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import BytesIO, StringIO
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from backstop.platform.contract import File
from backstop.platform.intake.patterns import matches
from backstop.platform.params import BadInput

PACKED = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\0": lzma.decompress,
}
FOREIGN = {  # how files begin that are no text
    b"\x28\xb5\x2f\xfd": "a file packed with zstd; unpack it",
    b"PAR1": "a Parquet file; write it as csv",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as csv",
    b"\x93NUMPY": "a NumPy array; write it as csv",
    b"\x89HDF": "an HDF5 file; write it as csv",
    b"SQLite format 3": "an SQLite database; write the table as csv",
    b"%PDF": "a PDF document",
}
POINTERS = {
    b"version https://git-lfs": (
        "a Git LFS pointer, not the file itself; fetch it with git lfs pull"
    ),
    b"/annex/objects/": "a git-annex pointer, not the file itself; fetch it with git annex get",
}
OFFICE = ("xl/", "word/", "ppt/")  # folders in the archives that office documents are
WEB_PAGE = "a web page, not the file itself; download it again, perhaps after a login"
LONGEST_FIELD = 2**24  # characters of one field of a csv file


def md5_of(content: Path | bytes) -> str:
    """The md5 (hex) of a file or of bytes: against damage, not against forgery."""
    if isinstance(content, bytes):
        return hashlib.md5(content, usedforsecurity=False).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def file_status(folder: Path, file: File) -> Literal["present", "missing", "corrupt"]:
    """What the data folder holds: ``corrupt`` where a file is there that cannot be read or has
    another checksum.
    """
    path_or_problem = find_file(folder, file)
    if isinstance(path_or_problem, Path):
        return "present"
    return "corrupt" if path_or_problem else "missing"


def locate_file(folder: Path, file: File) -> Path:
    """The file, or the first of those that serve as well, that is there and whole. BadInput where
    there is none.
    """
    path_or_problem = find_file(folder, file)
    if isinstance(path_or_problem, Path):
        return path_or_problem
    problem = path_or_problem or f"{folder / file.path} is missing"
    raise BadInput(f"{problem}; {file.hint}")


def find_file(folder: Path, file: File) -> Path | str:
    """The path of the file or of the first that serves as well, a pattern as it stands; else what
    is wrong with the first that is there; nothing where none is.
    """
    problem = ""
    for option in (file, *file.instead):
        path = folder / option.path
        try:
            if not matches(path):
                continue
            md5 = option.md5 and md5_of(path)
        except OSError as error:
            problem = problem or f"{path} cannot be read: {error.strerror}"
            continue
        if md5 == option.md5:
            return path
        corrupt = f"{path} is corrupt: its md5 is {md5}, not {option.md5}"
        problem = problem or foreign(path) or corrupt
    return problem


@contextmanager
def naming_file(path: Path, hint: str) -> Iterator[None]:
    """Whatever a decoder raises on damaged bytes becomes BadInput that names the file."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(
            foreign(path, f"; {hint}")
            or f"{path} cannot be read: {type(error).__name__}: {_line(error)}; {hint}"
        ) from error


@contextmanager
def naming_download(name: str, hint: str) -> Iterator[None]:
    """Whatever goes wrong with the network or the disk becomes BadInput. What a downloader prints
    goes to stderr.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        raise BadInput(
            f"{name} could not be downloaded: {type(error).__name__}: {_line(error)}; {hint}"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def read_text(
    path: Path,
    encoding: str = "utf-8",
    *,
    otherwise: str | None = None,
    hint: str = "",
) -> str:
    """The text of a file, unpacked where it is packed by gzip, bzip2, xz or as the only file of a
    zip archive, whatever its name says.

    A byte-order mark decides on UTF-8 or UTF-16 and is no part of the text. Where the bytes are
    none of ``encoding`` it is read as ``otherwise``. BadInput that names the line where neither is
    right, and for files that are no text at all.
    """
    content = _unpacked(path)
    _refuse_foreign(content, path)
    encoding = _marked_encoding(content) or encoding
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if otherwise is None:
            where = f"{path}: {_undecodable(content, error.start)}"
            raise BadInput(f"{where}, which is no {encoding.upper()}{hint}") from None
        text = content.decode(otherwise)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise BadInput(f"{path}: line {line} holds a zero byte, so the file is damaged or no text")
    return text


def _refuse_foreign(content: bytes, path: Path) -> None:
    """BadInput where the content begins as something that is no text does."""
    for start, what in (FOREIGN | POINTERS).items():
        if content.startswith(start):
            raise BadInput(f"{path} is {what}")
    if _web_page(content):
        raise BadInput(f"{path} is {WEB_PAGE}")


def _marked_encoding(content: bytes) -> str:
    """The encoding that a byte-order mark tells; nothing where there is none."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return "utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else ""


def _undecodable(content: bytes, position: int) -> str:
    """The byte at a position and its line, in words."""
    line = len(content[:position].splitlines()) or 1
    byte = content[position : position + 1].hex()
    return f"line {line} holds the byte 0x{byte}"


def _web_page(content: bytes) -> bool:
    return (
        content[:256]
        .lstrip(b"\xef\xbb\xbf \r\n\t")
        .lower()
        .startswith((b"<!doctype", b"<html", b"<?xml"))
    )


def foreign(path: Path, hint: str = "") -> str:
    """What stands in place of a file that is no text: a pointer to it or a web page; nothing where
    it is neither.
    """
    try:
        with path.open("rb") as file:
            content = file.read(256)
    except OSError:
        return ""
    what = next(
        (what for start, what in POINTERS.items() if content.startswith(start)),
        WEB_PAGE if _web_page(content) else "",
    )
    return f"{path} is {what}{hint}" if what else ""


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    for start, unpack in PACKED.items():
        if content.startswith(start):
            return unpack(content)
    if not content.startswith(b"PK\x03\x04"):
        return content
    with zipfile.ZipFile(BytesIO(content)) as archive:
        return archive.read(_only_file(archive, path))


def _only_file(archive: zipfile.ZipFile, path: Path) -> str:
    names = archive.namelist()
    if any(name.startswith(OFFICE) or name == "content.xml" for name in names):
        raise BadInput(
            f"{path} is an Excel workbook or another office document; save the sheet as csv"
        )
    files = [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(files) != 1:
        raise BadInput(
            f"{path} is a zip archive of {len(files)} files, {', '.join(files[:4])};"
            " unpack the one that is meant"
        )
    return files[0]


def csv_records(
    content: str,
    separator: str = ",",
    *,
    quotes: bool = True,
    strip: bool = True,
) -> Iterator[tuple[int, list[str]]]:
    r"""The records of a csv text with the number of the line in which each begins; blank lines are
    left out.

    With ``strip`` fields lose the blanks around them. A ValueError names the line of a quotation
    mark that is not closed, or after which text goes on.

    >>> list(csv_records('a,b\n\n"1,5", x\n'))
    [(1, ['a', 'b']), (3, ['1,5', 'x'])]
    """
    csv.field_size_limit(LONGEST_FIELD)
    rows = csv.reader(
        StringIO(content, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        skipinitialspace=strip,
        strict=True,
    )
    same: dict[str, str] = {}  # one object for equal fields, of which a table has many
    while True:
        start = rows.line_num + 1
        try:
            fields = next(rows, None)
        except csv.Error as error:
            raise ValueError(_marks(start, rows.line_num, str(error))) from None
        if fields is None:
            return
        if rows.line_num > start and _holds_rows(fields, separator):
            raise ValueError(_marks(start, rows.line_num, ""))
        if strip:
            fields = [same.setdefault(field, field) for field in map(str.strip, fields)]
        if len(fields) > 1 or "".join(fields).strip():
            yield start, fields


def _holds_rows(fields: list[str], separator: str) -> bool:
    """Whether a field of a record holds whole lines of as many fields as the record has."""
    separators = len(fields) - 1
    if not separators:
        return False
    inner = chain.from_iterable(field.splitlines()[1:-1] for field in fields)
    return any(line.count(separator) == separators for line in inner)


def _marks(
    start: int,
    stop: int,
    problem: str,
) -> str:
    """What is wrong with the quotation marks of a record; ``problem`` is what csv says of it."""
    lines = f"line {start}" if stop <= start else f"lines {start} to {stop}"
    if not problem:
        how = "a field in quotation marks holds whole rows, so a mark seems to be missing"
    elif "expected after" in problem:
        how = "text goes on after a closing quotation mark"
    else:
        how = "a quotation mark is not closed"
    return f"{lines}: {how}"


def _dtype(
    name: Any,
    align: Any = False,
    copy: Any = False,
) -> np.dtype[Any]:
    """``numpy.dtype`` as old pickles call it, with integers for its flags, which NumPy 2.4 warns
    of.
    """
    made: np.dtype[Any] = np.dtype(name, align=bool(align), copy=bool(copy))
    return made


def _latin1(text: str, encoding: str) -> bytes:
    """``_codecs.encode`` as protocol 2 uses it to store bytes, and no other codec."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r} is not allowed")
    return text.encode("latin1")


_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1,
}


class _ArraysOnly(pickle.Unpickler):
    """Reads plain containers, numbers, text and numpy arrays, and refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed, only numpy arrays are")
        return _ALLOWED[module, name]


def unpickle(content: bytes) -> Any:
    """Read a pickle that may hold containers, numbers, text and numpy arrays only; text of Python 2
    stays bytes.

    Raises ``pickle.UnpicklingError`` for anything else, before it is called.
    """
    return _ArraysOnly(BytesIO(content), encoding="bytes").load()


def idx(content: bytes, *sides: int) -> npt.NDArray[np.uint8]:
    """The bytes of an IDX file, packed by gzip or not: an array (N, sides …), read-only. ValueError
    where they are anything else.

    The file is two zero bytes, the type (8: uint8), the number of axes, their big-endian lengths,
    and the values.

    >>> idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    array([7, 2, 1], dtype=uint8)
    """
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    shape = _idx_shape(content)
    if len(shape) != 1 + len(sides) or shape[1:] != sides or not shape[0]:
        raise ValueError(f"it has the shape {shape}, not {('N', *sides)}, N > 0".replace("'", ""))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
    declared = math.prod(shape)
    if len(values) != declared:
        raise ValueError(
            f"it has {len(values)} values, not the {declared} that its header declares"
        )
    return values.reshape(shape)


def _idx_shape(content: bytes) -> tuple[int, ...]:
    """The lengths of the axes that the header of an IDX file declares."""
    if content[:3] != b"\0\0\x08":
        raise ValueError("not a uint8 IDX file")
    axes = content[3]
    return tuple(np.frombuffer(content, ">u4", count=axes, offset=4).tolist())
