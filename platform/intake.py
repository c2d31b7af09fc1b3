"""What comes in from outside: files are checked and decoded without running code, decoded datasets are validated.

Everything wrong is :class:`BadInput`: one line that names the file or the tensor, what it is, and what it should be.
"""

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
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backstop.platform.contract import Data, File, Samples
from backstop.platform.params import BadInput

FORMS = {
    "image": (4, (torch.uint8, torch.float32), "uint8 or float32 (N, C, H, W)"),
    "table": (2, (torch.float32,), "float32 (N, F)"),
    "text": (2, (torch.int64,), "int64 (N, L)"),
}


PACKED = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ\0": lzma.decompress}
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
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself; fetch it with git lfs pull",
    b"/annex/objects/": "a pointer of git-annex and not the file itself; fetch it with git annex get",
}
PAGE = "a web page and not the file itself; get it anew, perhaps after a login"
FIELD = 2**24  # characters of one field of a csv file, at most


def digest(content: Path | bytes) -> str:
    """The md5 (hex) of a file or of bytes: against damage, not against forgery."""
    if isinstance(content, bytes):
        return hashlib.md5(content, usedforsecurity=False).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def status(folder: Path, file: File) -> Literal["present", "missing", "corrupt"]:
    """What the data folder holds: ``corrupt`` where a file is there that cannot be read or has another checksum."""
    found = search(folder, file)
    return "present" if isinstance(found, Path) else "corrupt" if found else "missing"


def locate(folder: Path, file: File) -> Path:
    """The file, or the first of those that serve as well, that is there and whole. BadInput where there is none."""
    found = search(folder, file)
    if isinstance(found, Path):
        return found
    raise BadInput(f"{found or f'{folder / file.path} is missing'}; {file.hint}")


def search(folder: Path, file: File) -> Path | str:
    """The path of the file or of the first that serves as well; else what is wrong with the first that is there; nothing where none is."""
    problem = ""
    for option in (file, *file.instead):
        path = folder / option.path
        try:
            if not path.exists():
                continue
            found = option.md5 and digest(path)
        except OSError as error:
            problem = problem or f"{path} cannot be read: {error.strerror}"
            continue
        if found == option.md5:
            return path
        problem = problem or _foreign(path) or f"{path} is corrupt: its md5 is {found}, not {option.md5}"
    return problem


@contextmanager
def reading(path: Path, hint: str) -> Iterator[None]:
    """Whatever a decoder raises on damaged bytes becomes BadInput that names the file."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(_foreign(path, f"; {hint}") or f"{path} cannot be read: {type(error).__name__}: {_line(error)}; {hint}") from error


@contextmanager
def downloading(name: str, hint: str) -> Iterator[None]:
    """Whatever goes wrong with the network or the disk becomes BadInput. What a downloader prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        raise BadInput(f"{name} could not be downloaded: {type(error).__name__}: {_line(error)}; {hint}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def text(path: Path, encoding: str = "utf-8", *, otherwise: str | None = None, hint: str = "") -> str:
    """The text of a file, unpacked where it is packed by gzip, bzip2, xz or as the only file of a zip archive, whatever its name says.

    A byte-order mark decides on UTF-8 or UTF-16 and is no part of the text. Where the bytes are none of ``encoding`` it is read as
    ``otherwise``. BadInput that names the line where neither is right, and for files that are no text at all.
    """
    content = _unpacked(path)
    for start, what in (FOREIGN | POINTERS).items():
        if content.startswith(start):
            raise BadInput(f"{path} is {what}")
    if _web_page(content):
        raise BadInput(f"{path} is {PAGE}")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif content.startswith(b"\xef\xbb\xbf"):
        encoding = "utf-8-sig"
    try:
        found = content.decode(encoding)
    except UnicodeDecodeError as error:
        if otherwise is None:
            number = len(content[: error.start].splitlines()) or 1
            byte = content[error.start : error.start + 1].hex()
            raise BadInput(f"{path}: line {number} holds the byte 0x{byte}, which is no {encoding.upper()}{hint}") from None
        found = content.decode(otherwise)
    if "\0" in found:
        number = found[: found.index("\0")].count("\n") + 1
        raise BadInput(f"{path}: line {number} holds a zero byte, so the file is damaged or no text")
    return found


def _web_page(content: bytes) -> bool:
    return content[:256].lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def _foreign(path: Path, hint: str = "") -> str:
    """What stands in place of a file that is no text: a pointer to it or a web page; nothing where it is neither."""
    try:
        with path.open("rb") as file:
            content = file.read(256)
    except OSError:
        return ""
    what = next((what for start, what in POINTERS.items() if content.startswith(start)), PAGE if _web_page(content) else "")
    return f"{path} is {what}{hint}" if what else ""


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    for start, unpack in PACKED.items():
        if content.startswith(start):
            return unpack(content)
    if not content.startswith(b"PK\x03\x04"):
        return content
    with zipfile.ZipFile(BytesIO(content)) as archive:
        names = archive.namelist()
        if any(name.startswith(("xl/", "word/", "ppt/")) or name == "content.xml" for name in names):
            raise BadInput(f"{path} is an Excel workbook or another office document; save the sheet as csv")
        names = [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise BadInput(f"{path} is a zip archive of {len(names)} files, {', '.join(names[:4])}; unpack the one that is meant")
        return archive.read(names[0])


def records(content: str, separator: str = ",", *, quotes: bool = True, strip: bool = True) -> Iterator[tuple[int, list[str]]]:
    r"""The records of a csv text with the number of the line in which each begins; blank lines are left out.

    With ``strip`` fields lose the blanks around them. A ValueError names the line of a quotation mark that is not closed, or after which text goes on.

    >>> list(records('a,b\n\n"1,5", x\n'))
    [(1, ['a', 'b']), (3, ['1,5', 'x'])]
    """
    csv.field_size_limit(FIELD)
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
        if rows.line_num > start and any(_swallowed(field, separator, len(fields)) for field in fields):
            raise ValueError(_marks(start, rows.line_num, ""))
        if strip:
            fields = [same.setdefault(field, field) for field in map(str.strip, fields)]
        if len(fields) > 1 or "".join(fields).strip():
            yield start, fields


def _swallowed(field: str, separator: str, width: int) -> bool:
    """Whether a field holds whole lines of as many fields as its record has."""
    return any(inner.count(separator) == width - 1 > 0 for inner in field.splitlines()[1:-1])


def _marks(start: int, stop: int, problem: str) -> str:
    lines = f"line {start}" if stop <= start else f"lines {start} to {stop}"
    how = "text goes on after a closing quotation mark" if "expected after" in problem else "a quotation mark is not closed"
    return f"{lines}: " + (how if problem else "a field in quotation marks holds whole rows, so a mark seems to be missing")


def _dtype(name: Any, align: Any = False, copy: Any = False) -> np.dtype[Any]:
    """``numpy.dtype`` as old pickles call it, with integers for its flags, which NumPy 2.4 warns of."""
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
    """Read a pickle that may hold containers, numbers, text and numpy arrays only; text of Python 2 stays bytes.

    Raises ``pickle.UnpicklingError`` for anything else, before it is called.
    """
    return _ArraysOnly(BytesIO(content), encoding="bytes").load()


def idx(content: bytes, *sides: int) -> npt.NDArray[np.uint8]:
    """The bytes of an idx file, packed by gzip or not: an array (N, sides …), read-only. ValueError where they are anything else.

    The file is two zero bytes, the type (8: uint8), the number of axes, their big-endian lengths, and the values.

    >>> idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    array([7, 2, 1], dtype=uint8)
    """
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    if content[:3] != b"\0\0\x08":
        raise ValueError("it is no idx file of bytes")
    shape = tuple(np.frombuffer(content, ">u4", count=content[3], offset=4).tolist())
    if len(shape) != 1 + len(sides) or shape[1:] != sides or not shape[0]:
        raise ValueError(f"it has the shape {shape}, not {('N', *sides)}, N > 0".replace("'", ""))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
    if len(values) != math.prod(shape):
        raise ValueError(f"it has {len(values)} values, not the {math.prod(shape)} that its head announces")
    return values.reshape(shape)


def scale(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), of x / 255; the sums are exact.

    >>> scale(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2))
    ((0.5,), (0.5,))
    """
    counts = [torch.bincount(x[:, channel].flatten(), minlength=256).tolist() for channel in range(x.shape[1])]
    moments = [[sum(count * value**power for value, count in enumerate(channel)) for power in range(3)] for channel in counts]
    mean = tuple(first / (255 * n) for n, first, _ in moments)
    std = tuple(math.sqrt(n * second - first**2) / (255 * n) for n, first, second in moments)
    return mean, std


def checked(data: Data, name: str) -> Data:
    """The data if it is as the contract says, or BadInput.

    >>> short = Samples(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
    >>> checked(Data(train=short, test=short, classes=2, kind="table"), "toy")
    Traceback (most recent call last):
    backstop.platform.params.BadInput: dataset toy: train has 3 inputs and 2 labels
    """
    where = f"dataset {name}"
    if data.classes < 2:
        raise BadInput(f"{where}: classes={data.classes}; there are at least 2")
    parts = {"train": data.train, "test": data.test} | ({} if data.root is None else {"root": data.root})
    for part, samples in parts.items():
        check_inputs(samples.x, data.kind, f"{where}: {part}")
        _check_labels(samples, data.classes, f"{where}: {part}")
        if samples.x.shape[1:] != data.train.x.shape[1:] or samples.x.dtype != data.train.x.dtype:
            raise BadInput(f"{where}: {part} inputs are {_form(samples.x)}, train inputs are {_form(data.train.x)}")
    _check_scale(data, where)
    if data.client is not None:
        if data.client.dtype != torch.int64 or data.client.shape != data.train.y.shape:
            raise BadInput(
                f"{where}: clients are {_form(data.client)}; they are int64, one for each of the {len(data.train.y)} train samples"
            )
        if data.client.min() < 0:
            raise BadInput(f"{where}: client {int(data.client.min())} is negative")
    return data


def check_inputs(x: Tensor, kind: str, where: str) -> None:
    """BadInput unless the inputs have the form and the values that the contract gives to their kind."""
    axes, types, form = FORMS[kind]
    if x.ndim != axes or x.dtype not in types or 0 in x.shape:
        raise BadInput(f"{where} inputs are {_form(x)}; {kind} data is {form}, not empty")
    if x.dtype == torch.float32 and not bool(torch.isfinite(x).all()):
        raise BadInput(f"{where} inputs hold NaN or infinity")
    if kind == "image" and x.dtype == torch.float32 and (x.min() < 0 or x.max() > 1):
        raise BadInput(f"{where} inputs reach from {float(x.min()):g} to {float(x.max()):g}; float32 images stay in [0, 1]")
    if kind == "text" and x.min() < 0:
        raise BadInput(f"{where} inputs hold the negative token id {int(x.min())}")
    if kind == "text" and bool(((x[:, :-1] == 0) & (x[:, 1:] != 0)).any()):
        raise BadInput(f"{where} inputs hold token id 0 before other ids; 0 only pads on the right")


def _check_labels(samples: Samples, classes: int, where: str) -> None:
    x, y = samples
    if y.ndim != 1 or y.dtype != torch.int64:
        raise BadInput(f"{where} labels are {_form(y)}; labels are int64 (N,)")
    if len(x) != len(y):
        raise BadInput(f"{where} has {len(x)} inputs and {len(y)} labels")
    if y.min() < 0 or y.max() >= classes:
        raise BadInput(f"{where} labels reach from {int(y.min())} to {int(y.max())}; they are in 0..{classes - 1}")


def _check_scale(data: Data, where: str) -> None:
    if data.mean is None and data.std is None:
        return
    wanted = data.train.x.shape[1]
    if data.mean is None or data.std is None or len(data.mean) != wanted or len(data.std) != wanted:
        raise BadInput(f"{where}: mean and std have one value for each of the {wanted} channels or features, or are both None")
    if not all(map(math.isfinite, (*data.mean, *data.std))) or min(data.std) <= 0:
        raise BadInput(f"{where}: mean and std are finite and std is positive; they are {data.mean} and {data.std}")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} ({', '.join(map(str, tensor.shape))})"
