"""The leaderboard's document: written, read, computed again, compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backstop.platform import disk
from backstop.platform.params import BadInput
from backstop.platform.results.names import Json, chain_label, stages_of

SCHEMA = 1

Document = dict[str, Any]


def encode_document(document: Json) -> str:
    """The file's text: valid JSON, one line per row, cell and run, so that two files can be
    compared line by line.
    """
    blocks = []
    for key, value in document.items():
        text = _json(value)
        if isinstance(value, list) and value:
            lines = ",\n  ".join(map(_json, value))
            text = f"[\n  {lines}\n ]"
        blocks.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def load_document(path: Path) -> Document:
    """A leaderboard.json. Raises BadInput when it cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"leaderboard {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BadInput(f"leaderboard {path} is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BadInput(f"leaderboard {path}: it is no leaderboard of schema {SCHEMA}")
    try:
        _add_stages(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"leaderboard {path}: its runs cannot be read ({type(error).__name__}: {error});"
            " was the file changed by hand?"
        ) from None
    return document


def _add_stages(document: Document) -> None:
    """Give cells and rows the stages of their chains, which older files hold in their runs only."""
    chains = {
        chain_label(run["spec"][role], role): stages_of(run["spec"][role])
        for run in document.get("runs", ())
        for role in ("attack", "defense")
    }
    for item in (*document.get("cells", ()), *document.get("rows", ())):
        for role in ("attack", "defense"):
            if item.get(role) in chains:
                item.setdefault(f"{role}_stages", chains[item[role]])


def write_text(file: Path, content: str) -> Path:
    """Write a text file whole or not at all, with line feeds on every system. Raises BadInput when
    it cannot be written.
    """
    try:
        disk.write_atomically(file, content.encode())
    except OSError as error:
        raise BadInput(f"{file}: cannot be written: {error.strerror or error}") from None
    return file
