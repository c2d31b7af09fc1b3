"""What lies in the data folder: for every dataset which files are there, which are missing or
corrupt, and how to get them.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backstop.platform import plugins
from backstop.platform.contract import Data, Dataset, File
from backstop.platform.intake import readings
from backstop.platform.intake.files import file_status, find_file
from backstop.platform.intake.own_files import in_working_folder
from backstop.platform.params import BadInput
from backstop.platform.results.figures.wording import plural
from backstop.platform.specs.part import Part

DatasetItem = Mapping[str, Any]
HEADINGS = {  # of datasets, in the order in which they are shown: (heading, mark)
    "free": ("need no files", "✓"),
    "usable": ("in the data folder", "✓"),
    "lacking": ("missing or corrupt", "✗"),
    "own": ("read a file of your own", "·"),
    "broken": ("cannot be used", "✗"),
}
NAMED = 3  # files that a summary names at most
DOWNLOAD = re.compile(r"backstop data \S+ --download")
NO_BREAK = "\N{NO-BREAK SPACE}"


def _dataset(part: Part) -> Dataset:
    dataset: Dataset = plugins.build("datasets", part.name, part.params)
    return dataset


def _row(
    folder: Path,
    file: File,
    role: str,
) -> dict[str, Any]:
    """A file as a plain object. ``found`` is the path of what is there and whole, the file or one
    that serves as well, and ``md5`` then the checksum that it was compared with, None where none is
    published.
    """
    row = {
        "path": file.path,
        "role": role,
        "state": "missing",
        "md5": file.md5,
        "hint": in_working_folder(folder, file) or file.hint,
        "found": None,
    }
    path_or_problem = find_file(folder, file)
    if isinstance(path_or_problem, Path):
        option = _option_at(path_or_problem, folder, file)
        return row | {
            "state": "present",
            "md5": option.md5,
            "found": option.path,
        }
    if path_or_problem:
        return row | {"state": "corrupt", "problem": path_or_problem}
    return row


def _option_at(
    path: Path,
    folder: Path,
    file: File,
) -> File:
    """What lies at the path: the file itself or one that serves as well."""
    options = {folder / option.path: option for option in (*file.instead, file)}
    return options[path]


def look(part: Part, folder: Path) -> dict[str, Any]:
    """One dataset as a plain object; ``usable`` when every file that it needs is present. Edge
    cases are needed by an attack only. ``own``: a parameter names the file, so it is one that only
    the user can have. A dataset that cannot be built has ``error``.
    """
    name = part.name
    item: dict[str, Any] = {
        "name": name,
        "summary": "",
        "kinds": [],
        "usable": False,
        "own": False,
        "files": [],
        "can_download": False,
    }
    try:
        plugin, dataset = plugins.find("datasets", name), _dataset(part)
    except BadInput as error:
        return item | {"error": str(error)}
    files = [_row(folder, file, "data") for file in dataset.files]
    return item | {
        "summary": plugin.summary,
        "kinds": list(plugins.kinds("datasets", name)),
        "usable": all(row["state"] == "present" for row in files),
        "own": _names_a_file(part, dataset),
        "files": [*files, *_edge_rows(folder, dataset)],
        "can_download": dataset.download is not None,
    }


def _names_a_file(part: Part, dataset: Dataset) -> bool:
    """Whether a parameter's value, or its default, is the path of a file."""
    parameters = plugins.find("datasets", part.name).parameters
    named = {parameter.default for parameter in parameters.values()}
    named.update(part.params.values())
    return any(file.path in named for file in dataset.files)


def _edge_rows(folder: Path, dataset: Dataset) -> list[dict[str, Any]]:
    """The files of the edge cases, each once, as one may hold several parts of them."""
    rows = {}
    for file in dataset.edge_files:
        row = _row(folder, file, "edge cases")
        rows[row["path"], row["found"]] = row
    return list(rows.values())


def read_dataset(part: Part, folder: Path) -> Data:
    """The dataset with what it makes of its files. Raises BadInput where they cannot be read."""
    loaded = _dataset(part).load(folder)
    return loaded._replace(reading=readings.of(loaded, part.name))


def download(part: Part, folder: Path) -> None:
    """Fetch what is missing. Raises BadInput where the dataset has no downloader or the network
    does not allow it.
    """
    dataset, name = _dataset(part), part.name
    if all(file_status(folder, file) == "present" for file in dataset.files):
        return
    if dataset.download is None:
        instead = dataset.files[0].hint if dataset.files else "it needs no files"
        raise BadInput(f"dataset {name} has no downloader; {instead}")
    dataset.download(folder)


def overview_lines(
    items: Sequence[DatasetItem],
    folder: Path,
    width: int,
) -> Iterator[str]:
    """The lines that show all datasets in groups, files by their number."""
    yield _head(folder)
    column = max(len(item["name"]) for item in items)
    for group, (heading, mark) in HEADINGS.items():
        members = [item for item in items if _group(item) == group]
        if members:
            yield from ("", heading)
        for item in members:
            start = f"  {mark} {item['name']:{column}}  "
            yield from _lines_in_overview(item, start, width)


def _lines_in_overview(
    item: DatasetItem,
    start: str,
    width: int,
) -> Iterator[str]:
    """One dataset after its mark and name: what it is, or how its files are."""
    if _group(item) == "free":
        room = width - len(start)
        yield start + textwrap.shorten(_summary(item), room, placeholder=" …")
        return
    state = item.get("error") or "; ".join(_counted(item))
    yield from _wrapped(state, start, width)
    yield from _hints(item, " " * len(start), width)


def sheet_lines(
    item: DatasetItem,
    folder: Path,
    width: int,
) -> Iterator[str]:
    """The lines that show one dataset with each of its files."""
    yield _head(folder)
    _, mark = HEADINGS[_group(item)]
    text = item.get("error") or _summary(item)
    yield from _wrapped(text, f"{mark} {item['name']}: ", width)
    if _group(item) == "free":
        yield "    needs no files"
    yield from _file_lines(item["files"], width)
    yield from _hints(item, "    ", width)


def _file_lines(rows: Sequence[DatasetItem], width: int) -> Iterator[str]:
    """A line for each file, and what is wrong with it below."""
    state_width = max((len(_state(row)) for row in rows), default=0)
    md5_width = max((len(row["md5"] or "") for row in rows), default=0)
    for row in rows:
        columns = (
            f"{_state(row):{state_width}}",
            f"{row['md5'] or '':{md5_width}}",
            _path_in_words(row),
        )
        yield f"    {'  '.join(filter(None, columns))}"
        indent = " " * (6 + state_width)
        yield from _wrapped(row.get("problem", ""), indent, width)


def _path_in_words(row: DatasetItem) -> str:
    """A file's path, what it is in place of, and what it is for if that is not the data."""
    words = _path(row)
    if row["found"] not in {None, row["path"]}:
        words += f", in place of {row['path']}"
    if row["role"] != "data":
        words += f" ({row['role']})"
    return words


def _head(folder: Path) -> str:
    remark = "" if folder.is_dir() else " (there is no such folder)"
    return f"data folder: {folder.absolute()}{remark}"


def _group(item: DatasetItem) -> str:
    if "error" in item:
        return "broken"
    if item["own"]:
        return "own"
    if not item["files"]:
        return "free"
    return "usable" if item["usable"] else "lacking"


def _summary(item: DatasetItem) -> str:
    """The first line of the data sheet without the name that stands before it."""
    head, colon, rest = item["summary"].partition(": ")
    head_as_name = head.lower().replace("-", "").replace(" ", "")
    if colon and head_as_name == item["name"].replace("_", ""):
        return f"{rest[:1].upper()}{rest[1:]}"
    return str(item["summary"])


def _path(row: DatasetItem) -> str:
    return str(row["found"] or row["path"])


def _state(row: DatasetItem) -> str:
    """The state of a file in words."""
    if row["state"] == "present" and row["md5"]:
        return "present, md5 ok"
    return str(row["state"])


def _counted(item: DatasetItem) -> Iterator[str]:
    """How many files are in which state, data first. Named are those that are out of order among
    others, and a single one.
    """
    if item["own"] and not item["usable"]:
        yield f"{_path(item['files'][0])} is not there"
        return
    for role in ("data", "edge cases"):
        rows = [row for row in item["files"] if row["role"] == role]
        start = "" if role == "data" else f"{role}: "
        for state in dict.fromkeys(map(_state, rows)):
            paths = [_path(row) for row in rows if _state(row) == state]
            yield start + _files_in_state(paths, state, among=len(rows))


def _files_in_state(
    paths: Sequence[str],
    state: str,
    *,
    among: int,
) -> str:
    """Files in one state, of so many files in all."""
    if among == 1:
        return f"{paths[0]} {state}"
    count = f"{plural(len(paths), 'file')} {state}"
    if state == "corrupt" or (state == "missing" and len(paths) < among):
        return f"{count}: {_first_names(paths)}"
    return count


def _first_names(paths: Sequence[str]) -> str:
    """The files that a summary names; dots stand for the others."""
    names = ", ".join(paths[:NAMED])
    if len(paths) > NAMED:
        names += ", …"
    return names


def _hints(
    item: DatasetItem,
    indent: str,
    width: int,
) -> Iterator[str]:
    """How to get what is missing, each way once."""
    lacking = [row for row in item["files"] if row["state"] != "present"]
    for hint in dict.fromkeys(row["hint"] for row in lacking):
        yield from _wrapped(hint, f"{indent}→ ", width)


def _wrapped(
    text: str,
    start: str,
    width: int,
) -> list[str]:
    """The lines of a text, the next under the first; a command stays on one line, to be copied."""
    joined = DOWNLOAD.sub(lambda command: command[0].replace(" ", NO_BREAK), text)
    indent = " " * len(start)
    lines = textwrap.wrap(
        joined,
        width,
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(NO_BREAK, " ") for line in lines]
