"""Exit codes, and what commands print."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from backstop.platform import storage
from backstop.platform.commands import plain
from backstop.platform.params import BadInput
from backstop.platform.results.figures.wording import percent

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
NO_MODELS = "final models are not kept; backstop run --save FILE writes the one of a run"


def parse_actors(text: str) -> str | int:
    """The value of ``--client-actors``: auto, or how many."""
    if text == "auto":
        return text
    if text.isdecimal():
        return int(text)
    raise BadInput(f"--client-actors {text!r} is not allowed; auto or an integer of at least 0")


def percent_text(value: float | None) -> str:
    """A share for people: ``93.1 %``; a dash where there is none."""
    return percent(value) if value is None else f"{percent(value)} %"


def open_console(piped_width: int = 110) -> Any:
    """A terminal's own width; room for a table where stdout is a file or a pipe."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else piped_width)


def print_json(document: Any) -> None:
    """One JSON document on stdout; NaN and infinities become null."""
    finite = _finite(document)
    text = json.dumps(
        finite,
        ensure_ascii=False,
        allow_nan=False,
        indent=1,
    )
    if not plain.carries(sys.stdout, text):  # JSON's own escapes keep the document as it is
        text = json.dumps(finite, allow_nan=False, indent=1)
    print(text)


def _finite(item: Any) -> Any:
    """The same with None in place of NaN and infinities."""
    if isinstance(item, float) and not math.isfinite(item):
        return None
    if isinstance(item, Mapping):
        return {key: _finite(member) for key, member in item.items()}
    if isinstance(item, (list, tuple)):
        return [_finite(member) for member in item]
    return item


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def usable_store(options: argparse.Namespace) -> Any:
    """The store that a command writes to, checked; where it was moved or copied, its places are
    mended and that is said.
    """
    from backstop.platform.results.tracking.soundness import check_reachable
    from backstop.platform.results.tracking.store import locate_store

    folder = storage.locate(options.store)
    store = locate_store(folder)
    storage.check_object_store(folder)
    check_reachable(store)
    _repair(store)
    return store


def readable_store(options: argparse.Namespace) -> Any:
    """The store that a command only reads; where it can be written too, it is mended first."""
    from backstop.platform.results.tracking.soundness import check_reachable, read_only
    from backstop.platform.results.tracking.store import locate_store

    store = locate_store(storage.locate(options.store))
    check_reachable(store, write=False)
    if not read_only(store):
        _repair(store)
    return store


def _repair(store: Any) -> None:
    from backstop.platform.results.tracking.locations import repair_locations

    repaired = repair_locations(store)
    if repaired:
        say(f"backstop: {repaired}")


def say_interrupted(lost: Any) -> None:
    """Say what nobody works on any more, if there is anything."""
    if lost.words:
        say(f"backstop: {lost.words}")
