"""A leaderboard read from its file, whichever version has written it."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from backstop.platform.params import BadInput
from backstop.platform.results.leaderboard.document import SCHEMA, Document
from backstop.platform.results.leaderboard.verification import recompute

NAMES = ("leaderboard.json", "leaderboard.json.gz")  # in a folder of results
COMPRESSED = b"\x1f\x8b"  # how the content of a gzip file begins, whatever its name
FIRST_SCHEMA = 1  # whose rows followed another rule
HELD = {  # of a document, some fields that each of its items has
    "rows": {"defense", "defense_stages", "score"},
    "cells": {"setting", "attack", "defense"},
    "runs": {"id", "spec", "metrics"},
}


def document_file(path: Path) -> Path:
    """The file of a leaderboard: itself, or the one in a folder of results."""
    if not path.is_dir():
        return path
    plain, compressed = (path / name for name in NAMES)
    return compressed if compressed.exists() and not plain.exists() else plain


def read_document(path: Path) -> Document:
    """A leaderboard.json, or one that gzip has compressed, as it stands. Raises BadInput when it
    cannot be read.
    """
    path = document_file(path)
    try:
        content = path.read_bytes()
        if content.startswith(COMPRESSED):
            content = gzip.decompress(content)
        document = json.loads(content.decode())
    except (EOFError, zlib.error):
        raise BadInput(f"leaderboard {path} is cut short: gzip cannot read all of it") from None
    except OSError as error:
        raise BadInput(f"leaderboard {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BadInput(f"leaderboard {path} is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("schema") not in (FIRST_SCHEMA, SCHEMA):
        raise BadInput(
            f"leaderboard {path}: it is no leaderboard of schema {FIRST_SCHEMA} or {SCHEMA}"
        )
    return document


def load_document(path: Path) -> Document:
    """A leaderboard.json; one of the first schema is worked out again from the runs that it holds.

    Raises BadInput when it cannot be read.
    """
    document = read_document(path)
    if document["schema"] == FIRST_SCHEMA:
        return recompute(document)
    for block, fields in HELD.items():
        _check_block(path, document.get(block), block, fields)
    return document


def _check_block(
    path: Path,
    items: object,
    block: str,
    fields: set[str],
) -> None:
    """Raises BadInput unless the block is a list of objects with these fields."""
    if not isinstance(items, list) or not all(_has(item, fields) for item in items):
        raise BadInput(
            f"leaderboard {path}: its {block} cannot be read; was the file changed by hand?"
        )


def _has(item: object, fields: set[str]) -> bool:
    return isinstance(item, dict) and fields <= item.keys()
