"""What was read, in words: the line at every load, the lines of ``backstop data NAME``, the
document that a run keeps.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from backstop.platform.contract import Data, Reading
from backstop.platform.intake.tables import repeats

LISTED = 8  # classes and reasons that one line names at most
FORMS = {"image": "pixels", "table": "features", "text": "token ids"}
SAID = 2  # notes that one line has room for


def of(data: Data, name: str) -> Reading:
    """What the dataset says of its files; where it says nothing, what its tensors show."""
    if data.reading is not None:
        return data.reading
    (train, labels), (test, others) = data.train, data.test
    counts = (
        labels.bincount(minlength=data.classes) + others.bincount(minlength=data.classes)
    ).tolist()
    copies, across = repeats(train, test)
    return Reading(
        source=name,
        rows=len(train) + len(test),
        dropped={},
        classes={str(number): count for number, count in enumerate(counts)},
        train=len(train),
        test=len(test),
        copies=copies,
        across=across,
        form=f"{'×'.join(map(str, train.shape[1:]))} {FORMS[data.kind]}",
    )


def line(found: Reading) -> str:
    """One line that says what was read.

    >>> line(Reading("mine.csv", 9, {"no label": 1}, {"no": 5, "yes": 3}, 6, 2, form="5 features", notes=("a",)))
    'read mine.csv: 9 rows, 1 dropped (no label); 2 classes: no 5, yes 3; 5 features; 6 to train on, 2 to test; note: a'
    """
    pieces = [
        _rows_line(found),
        _classes(found.classes),
        found.form,
        _parts(found),
        _repeated(found),
    ]
    if found.notes:
        more = f"; {len(found.notes) - SAID} more: backstop data" if len(found.notes) > SAID else ""
        pieces.append(f"note: {'; '.join(found.notes[:SAID])}{more}")
    return f"read {found.source}: " + "; ".join(filter(None, pieces))


def sheet(found: Reading) -> Iterator[str]:
    """The lines that say all of it."""
    yield f"read {found.source}: {_rows_line(found)}"
    yield from (f"  dropped: {count} {reason}" for reason, count in found.dropped.items())
    yield f"  {_classes(found.classes, len(found.classes))}"
    yield f"  {'; '.join(filter(None, [found.form, _parts(found), _repeated(found)]))}"
    width = max((len(column.name) for column in found.columns), default=0)
    for column in found.columns:
        features = f"{column.features} feature{'s' * (column.features != 1)}"
        taken = column.kind if column.kind == "left out" else f"{column.kind}, {features}"
        yield f"  {column.name:{width}}  {taken}{f': {column.detail}' if column.detail else ''}"
    yield from (f"  note: {note}" for note in found.notes)


def document(found: Reading) -> dict[str, Any]:
    """All of it as a plain object."""
    return {
        **found._asdict(),
        "columns": [column._asdict() for column in found.columns],
        "notes": list(found.notes),
    }


def tag(found: Reading, limit: int) -> str:
    """The document as JSON of at most ``limit`` characters; the columns of a wide table are counted
    instead of listed.
    """
    full = document(found)
    kinds = Counter(column.kind for column in found.columns)
    shorter = {**full, "columns": dict(kinds), "notes": full["notes"][:LISTED]}
    for option in (full, shorter, {**shorter, "classes": len(found.classes)}):
        text = json.dumps(option, ensure_ascii=False, separators=(",", ":"))
        if len(text) <= limit:
            return text
    return line(found)[:limit]


def _rows_line(found: Reading) -> str:
    lost = sum(found.dropped.values())
    reasons = list(found.dropped)[:LISTED]
    counted = [
        reason if len(reasons) == 1 else f"{found.dropped[reason]} {reason}" for reason in reasons
    ]
    return f"{found.rows} rows" + (
        f", {lost} dropped ({', '.join(counted)})" if lost else ", none dropped"
    )


def _classes(classes: Mapping[str, int], most: int = LISTED) -> str:
    named = ", ".join(f"{name} {count}" for name, count in list(classes.items())[:most])
    return f"{len(classes)} classes: {named}{', …' if len(classes) > most else ''}"


def _parts(found: Reading) -> str:
    return f"{found.train} to train on, {found.test} to test"


def _repeated(found: Reading) -> str:
    """Equal rows: how many there are, and how many of them are on both sides of the split."""
    if not found.copies and not found.across:
        return ""
    return f"{found.copies} training rows are copies, {found.across} test rows stand in the training part too"
