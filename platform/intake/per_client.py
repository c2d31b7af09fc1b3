"""One csv file for each client, read as one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backstop.platform.intake.grid import Grid
from backstop.platform.params import BadInput

NAMED_COLUMNS = 6  # columns that a message names at most


class Joined(NamedTuple):
    """The rows of several files."""

    grid: Grid  # its lines are texts: ``57 of hospital_3.csv``
    owner: list[str]  # of each row the name of its client, that of its file
    clients: list[str]  # in the order of the files


def join_files(paths: Sequence[Path], read: Callable[[Path], Grid]) -> Joined:
    """The files one after another. Raises BadInput where their columns differ."""
    clients = _client_names(paths)
    grids = [read(path) for path in paths]
    first = grids[0]
    for path, grid in zip(paths, grids, strict=True):
        _check_columns(grid.names, first.names, path, paths[0])
    columns: dict[str, list[str]] = {name: [] for name in first.names}
    lines: list[str] = []
    owner: list[str] = []
    notes: dict[str, None] = {}
    for path, client, grid in zip(paths, clients, grids, strict=True):
        for name, column in zip(grid.names, grid.columns, strict=True):
            columns[name].extend(column)
        lines += [f"{line} of {path.name}" for line in grid.lines]
        owner += [client] * len(grid.lines)
        notes |= dict.fromkeys(f"{path.name}: {note}" for note in grid.notes)
    grid = Grid(first.names, list(columns.values()), np.array(lines), first.left_out, list(notes))
    return Joined(grid, owner, clients)


def _client_names(paths: Sequence[Path]) -> list[str]:
    """What clients are called: as their files, where these have different names, else as their
    folders and files.
    """
    stems = [path.name.partition(".")[0] for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [f"{path.parent.name}/{path.name}" for path in paths]


def _check_columns(
    names: Sequence[str],
    first: Sequence[str],
    path: Path,
    first_path: Path,
) -> None:
    lacking = [name for name in first if name not in names]
    further = [name for name in names if name not in first]
    if not lacking and not further:
        return
    words = []
    if lacking:
        words.append(f"lacks {_listed(lacking)}")
    if further:
        words.append(f"has {_listed(further)} besides")
    raise BadInput(
        f"{path} {' and '.join(words)}: all files of the clients have the columns of"
        f" {first_path.name}"
    )


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(map(repr, names[:NAMED_COLUMNS]))
    return text + ", …" * (len(names) > NAMED_COLUMNS)
