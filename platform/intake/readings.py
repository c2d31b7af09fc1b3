"""What was read, in words: the line at every load, the lines of ``backstop data NAME``, the
document that a run keeps.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backstop.platform.contract import Column, Data, Reading

MOST_LISTED = 8  # classes and reasons that one line names at most
FORMS = {
    "image": "pixels",
    "table": "features",
    "text": "token ids",
}
MOST_NOTES = 2  # notes that one line has room for


def of(data: Data, name: str) -> Reading:
    """What the dataset says of its files; where it says nothing, what its tensors show."""
    if data.reading is not None:
        return data.reading
    from backstop.platform.intake.tables import repeats

    train, test = data.train.x, data.test.x
    copies, across = repeats(train, test)
    return Reading(
        source=name,
        rows=len(train) + len(test),
        dropped={},
        classes=_class_counts(data),
        train=len(train),
        test=len(test),
        copies=copies,
        across=across,
        form=_form(data),
    )


def _class_counts(data: Data) -> dict[str, int]:
    """How many samples of both parts each class has."""
    import torch

    labels = torch.cat([data.train.y, data.test.y])
    counts = labels.bincount(minlength=data.classes).tolist()
    return {str(label): count for label, count in enumerate(counts)}


def _form(data: Data) -> str:
    sides = data.train.x.shape[1:]
    return f"{'×'.join(map(str, sides))} {FORMS[data.kind]}"


def line(reading: Reading) -> str:
    """One line that says what was read.

    >>> line(Reading("a.csv", 9, {"no label": 1}, {"no": 5, "yes": 3}, 6, 2))
    'read a.csv: 9 rows, 1 dropped (no label); 2 classes: no 5, yes 3; 6 to train on, 2 to test'
    """
    pieces = [
        _rows_line(reading),
        _classes(reading.classes),
        reading.form,
        _clients(reading),
        _parts(reading),
        _repeated(reading),
    ]
    if reading.notes:
        pieces.append(f"note: {_first_notes(reading.notes)}")
    return f"read {reading.source}: " + "; ".join(filter(None, pieces))


def _first_notes(notes: Sequence[str]) -> str:
    """The notes that one line has room for, and how many there are beside them."""
    listed = list(notes[:MOST_NOTES])
    more = len(notes) - MOST_NOTES
    if more > 0:
        listed.append(f"{more} more: backstop data")
    return "; ".join(listed)


def sheet(reading: Reading) -> Iterator[str]:
    """The lines that say all of it."""
    yield f"read {reading.source}: {_rows_line(reading)}"
    yield from (f"  dropped: {count} {reason}" for reason, count in reading.dropped.items())
    yield f"  {_classes(reading.classes, len(reading.classes))}"
    yield f"  {'; '.join(filter(None, [reading.form, _parts(reading), _repeated(reading)]))}"
    width = max((len(column.name) for column in reading.columns), default=0)
    for column in reading.columns:
        yield f"  {column.name:{width}}  {_fate(column)}"
    yield from (f"  note: {note}" for note in reading.notes)


def _fate(column: Column) -> str:
    """What became of a column."""
    fate: str = column.kind
    if column.kind != "left out":
        plural = "" if column.features == 1 else "s"
        fate += f", {column.features} feature{plural}"
    if column.detail:
        fate += f": {column.detail}"
    return fate


def document(reading: Reading) -> dict[str, Any]:
    """All of it as a plain object; clients where there are natural ones."""
    plain = {
        **reading._asdict(),
        "columns": [column._asdict() for column in reading.columns],
        "notes": list(reading.notes),
        "clients": list(reading.clients),
    }
    if not reading.clients:
        del plain["clients"]
    return plain


def tag(reading: Reading, limit: int) -> str:
    """The document as JSON of at most ``limit`` characters; the columns of a wide table are counted
    instead of listed.
    """
    full = document(reading)
    kinds = Counter(column.kind for column in reading.columns)
    shorter = {
        **full,
        "columns": dict(kinds),
        "notes": full["notes"][:MOST_LISTED],
    }
    if reading.clients:
        shorter["clients"] = len(reading.clients)
    for option in (full, shorter, {**shorter, "classes": len(reading.classes)}):
        text = json.dumps(option, ensure_ascii=False, separators=(",", ":"))
        if len(text) <= limit:
            return text
    return line(reading)[:limit]


def _rows_line(reading: Reading) -> str:
    lost = sum(reading.dropped.values())
    reasons = list(reading.dropped)[:MOST_LISTED]
    counted = [
        reason if len(reasons) == 1 else f"{reading.dropped[reason]} {reason}" for reason in reasons
    ]
    if not lost:
        return f"{reading.rows} rows, none dropped"
    return f"{reading.rows} rows, {lost} dropped ({', '.join(counted)})"


def _classes(classes: Mapping[str, int], most: int = MOST_LISTED) -> str:
    named = ", ".join(f"{name} {count}" for name, count in list(classes.items())[:most])
    return f"{len(classes)} classes: {named}{', …' if len(classes) > most else ''}"


def _parts(reading: Reading) -> str:
    return f"{reading.train} to train on, {reading.test} to test"


def _clients(reading: Reading) -> str:
    """How many natural clients there are."""
    count = len(reading.clients)
    return f"{count} natural client{'s' * (count != 1)}" if count else ""


def _repeated(reading: Reading) -> str:
    """Equal rows: how many there are, and how many of them are on both sides of the split."""
    if not reading.copies and not reading.across:
        return ""
    return (
        f"{reading.copies} training rows are copies,"
        f" {reading.across} test rows stand in the training part too"
    )
