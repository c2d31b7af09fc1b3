"""Is every figure of a leaderboard what its runs say: computed again, compared, sampled."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from backstop.platform.params import BadInput
from backstop.platform.results.figures.cells import (
    ACCURACY,
    SUCCESS,
    CellKey,
    Curve,
    Entry,
    cell_key,
    run_order,
)
from backstop.platform.results.figures.names import Json, row_of
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.leaderboard.ranking import ranking_document

MISSING = "(missing)"


def recompute(document: Json) -> Document:
    """The document that the document's own runs give, in today's schema. Raises BadInput when its
    runs cannot be read.
    """
    with _readable():
        return ranking_document(
            logged_runs(document),
            document["experiment"],
            fingerprint=document["fingerprint"],
            code=document.get("code", {}),
            missing=document.get("missing_runs", []),
            searched=document.get("searched", []),
        )


def logged_runs(document: Json) -> list[Entry]:
    """The runs of a document, in the order of runs. Raises BadInput for what is none."""
    with _readable():
        return sorted(map(_entry, document["runs"]), key=run_order)


@contextmanager
def _readable() -> Iterator[None]:
    """What goes wrong with the runs of a document is BadInput."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"leaderboard: its runs cannot be read ({type(error).__name__}: {error});"
            " was the file changed by hand?"
        ) from None


def _entry(run: Json) -> Entry:
    curves = {
        f"round/{SUCCESS}": _curve(run["success_by_round"]),
        f"round/{ACCURACY}": _curve(run.get("accuracy_by_round", [])),
    }
    return Entry(
        run["id"],
        run["spec"],
        run["metrics"],
        curves=curves,
        data=run.get("data", ""),
    )


def _curve(points: Sequence[Sequence[float]]) -> Curve:
    return [(int(at), float(value)) for at, value in points]


def differences(
    document: Json,
    other: Json,
    names: tuple[str, str] = ("file", "recomputed"),
) -> list[str]:
    """Every field in which two documents, or parts of them, differ, in words, in the order of the
    first; ``names`` say which is which.
    """
    lines = []
    for path, one, two in _different_fields("", document, other):
        lines.append(f"{path}: {names[0]} {_brief(one)}, {names[1]} {_brief(two)}")
    return lines


def _different_fields(
    path: str,
    old: object,
    new: object,
) -> Iterator[tuple[str, object, object]]:
    """Each field below the path, with the two values that it has."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            below = old.get(key, MISSING), new.get(key, MISSING)
            yield from _different_fields(_joined(path, key), *below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (old_item, new_item) in enumerate(zip(old, new, strict=True)):
            item_path = f"{path}[{index}]{_item_name(old_item)}"
            yield from _different_fields(item_path, old_item, new_item)
    elif json.dumps(old) != json.dumps(new):  # -0.0 is not 0.0
        yield path, old, new


def _joined(path: str, key: str) -> str:
    """A dot stands between plain keys, a blank after the name of a row, a cell or a run."""
    if not path:
        return key
    named = " " in path.rpartition("]")[2]
    return f"{path} {key}" if named else f"{path}.{key}"


def _item_name(item: object) -> str:
    """What a row, a cell or a run is called, after a blank; empty for anything else."""
    if not isinstance(item, Mapping):
        return ""
    if "rank" in item:
        return f" {item.get('defense')}"
    if isinstance(item.get("attack"), str):
        return f" {item['attack']} × {item.get('defense')}"
    return f" {str(item['id'])[:12]}" if "id" in item else ""


def _brief(value: object) -> str:
    if isinstance(value, list) and len(value) > 4:
        return f"{len(value)} entries"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"


def sample_runs(
    document: Json,
    count: int,
    wrong: Sequence[str] = (),
) -> list[Document]:
    """The runs to do again: those of the cells that differences name, then others in the order of
    their ids, ``count`` in all.
    """
    doubted = _cells_named(document.get("cells", ()), wrong)

    def doubted_first(run: Document) -> tuple[bool, str]:
        key = cell_key(run["spec"])
        cell = key._replace(defense=row_of(document, key.defense))
        return cell not in doubted, str(run["id"])

    return sorted(document["runs"], key=doubted_first)[: max(0, count)]


def _cells_named(cells: Sequence[Json], lines: Sequence[str]) -> set[CellKey]:
    """The cells that lines such as ``cells[3] …`` are about."""
    matches = [re.match(r"cells\[(\d+)\]", line) for line in lines]
    indices = {int(match[1]) for match in matches if match}
    return {
        CellKey(*(str(cell.get(field)) for field in CellKey._fields))
        for index, cell in enumerate(cells)
        if index in indices
    }
